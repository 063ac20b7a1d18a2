"""Config → how arrays lie on several devices: Keras's distribution on JAX, which weights are split, which part of a
batch this process feeds, and states too large to gather."""

import importlib.util
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import Config
from imgrec_cli.dataset import Parts
from imgrec_cli.errors import InputError, MissingExtraError, TrainingError, install_command
from imgrec_cli.training.job import Job

Array = NDArray[Any]
SMALLEST_SPLIT = 2**14  # values of a kernel: for fewer, moving activations costs more than the memory is worth


class SplitWeights(keras.distribution.ModelParallel):
    """Keras's model parallelism with an automatic layout: large kernels lie in parts along their outputs.

    A weight that `layout` names (a regular expression on its path → axes) lies as it says. What an optimizer keeps for
    a weight lies as the weight does.
    """

    def __init__(self, mesh: keras.distribution.DeviceMesh, layout: dict[str, tuple[str | None, ...]]) -> None:
        super().__init__(
            layout_map=keras.distribution.LayoutMap(mesh), batch_dim_name="batch", auto_shard_dataset=False
        )
        self.parts, self.named = mesh.shape[1], layout

    def get_variable_layout(self, variable: Any) -> Any:
        if getattr(variable, "_layout", None) is not None:
            return variable._layout
        axes = next((axes for text, axes in self.named.items() if re.search(text, variable.path)), None)
        if axes is None:
            axes = split_axes(variable.path, tuple(variable.shape), self.parts)
        elif len(axes) != len(variable.shape):
            raise InputError(
                f"distribute.layout: {list(axes)} has {len(axes)} axes, {variable.path} has {len(variable.shape)}",
                "write null for an axis that is not split",
            )
        elif any(name and size % self.parts for name, size in zip(axes, variable.shape, strict=True)):
            raise InputError(
                f"distribute.layout: {variable.path} {list(variable.shape)} cannot be divided into {self.parts} parts "
                f"along {list(axes)}",
                "split another axis, or choose another mesh",
            )
        return keras.distribution.TensorLayout(axes, self.device_mesh)


def require_named(layout: Iterable[str], weights: Sequence[Any]) -> None:
    """Raise InputError where a name of `distribute.layout` is that of no weight."""
    for text in layout:
        if not any(re.search(text, weight.path) for weight in weights):
            kernels = ", ".join(weight.path for weight in weights if "kernel" in weight.path)
            raise InputError(f"distribute.layout: {text} is in the path of no weight", f"kernels here: {kernels}")


def split_axes(path: str, shape: tuple[int, ...], parts: int) -> tuple[str | None, ...]:
    """The automatic layout of one weight: `model` on the axis that is split, at most one; None everywhere else.

    Outputs first, then inputs: kernels of dense layers are [in, out], of convolutions [height, width, in, out].
    """
    whole: list[str | None] = [None] * len(shape)
    if "kernel" in path.rpartition("/")[2] and len(shape) >= 2 and math.prod(shape) >= SMALLEST_SPLIT:
        for axis in (len(shape) - 1, len(shape) - 2):
            if shape[axis] % parts == 0:
                whole[axis] = "model"
                break
    return tuple(whole)


def begin(config: Config) -> bool:
    """Make every Keras variable from here on lie as the resolved config says; whether that is on several devices.

    Raises InputError where mesh or batch do not fit the devices.
    """
    strategy, shards, size = config.distribute.strategy, config.distribute.shards, config.train.images_per_step
    if shards is not None and size % shards:
        raise InputError(
            f"distribute.shards: {size} images cannot be divided into {shards} parts",
            f"use train.batch_size={math.ceil(size / shards) * shards}, or fewer parts",
        )
    if strategy not in ("data", "model"):
        return False
    devices, mesh = _grid(config)
    if len(devices) == 1:
        return False
    if math.prod(mesh) != len(devices):
        raise InputError(
            f"distribute.mesh: {list(mesh)} asks for {math.prod(mesh)} devices, there are {len(devices)}",
            f"leave it out, or choose two numbers whose product is {len(devices)}",
        )
    if shards is not None and shards % (2 * len(devices)):  # a single part on a device is compiled in another way
        raise InputError(
            f"distribute.shards: {shards} parts on {len(devices)} devices; each has to take two, four or more of them",
            "use more parts, and 1, 2, 4 … devices",
        )
    if size % mesh[0]:
        raise InputError(
            f"train.batch_size: {size} images cannot be divided among {mesh[0]} devices",
            f"use {math.ceil(size / mesh[0]) * mesh[0]}, or another number of devices",
        )
    if strategy == "data":
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False))
    else:
        grid = keras.distribution.DeviceMesh(mesh, ["batch", "model"], devices)
        keras.distribution.set_distribution(SplitWeights(grid, dict(config.distribute.layout)))
    return True


def _grid(config: Config) -> tuple[list[str], tuple[int, int]]:
    """All devices, and how many of them lie along the batch and along the weights."""
    import jax

    platform = "cpu" if config.runtime.device == "cpu" else None
    devices, hosts = keras.distribution.list_devices(platform), jax.process_count()
    if config.distribute.strategy == "data":
        return devices, (len(devices), 1)
    inner = len(devices) // hosts
    return devices, config.distribute.mesh or ((hosts, inner) if inner > 1 else (1, len(devices)))


def shared_parts(config: Config, job: Job) -> Parts | None:
    """The parts of the pack that this process feeds to its devices, where the processes of the job take other ones.

    Raises InputError where the processes do not divide the parts.
    """
    count = config.distribute.pack_parts
    if count is None or job.count == 1 or _grid(config)[1][0] % job.count:
        return None
    if count % job.count:
        raise InputError(
            f"distribute.pack_parts: {count} parts cannot be divided among {job.count} processes",
            "start 1, 2, 4 … processes, not more than there are parts",
        )
    each = count // job.count
    return Parts(count, range(job.index * each, (job.index + 1) * each), job.exchange)


def end() -> None:
    """Keras variables from here on lie on one device."""
    keras.distribution.set_distribution(None)


@contextmanager
def one_device() -> Iterator[None]:
    """A block whose Keras variables lie on one device."""
    active = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(active)


def weights_are_split() -> bool:
    """Whether variables may lie in parts on several devices."""
    return isinstance(keras.distribution.distribution(), SplitWeights)


def parts_of_batch() -> int:
    """Into how many parts a batch is divided among devices."""
    active = keras.distribution.distribution()
    return 1 if active is None else int(active.num_model_replicas)


def own_part(batch_size: int) -> slice:
    """The examples of a batch that the devices of this process take."""
    active = keras.distribution.distribution()
    if active is None:
        return slice(None)
    sharding = active.get_data_layout((batch_size,)).backend_layout
    spans = {
        span[0].indices(batch_size)[:2] for span in sharding.addressable_devices_indices_map((batch_size,)).values()
    }
    first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
    if sum(stop - start for start, stop in spans) != last - first:
        raise InputError(
            "distribute.mesh: the devices of one host would take parts of a batch that are not neighbours",
            "let the devices that share one copy of the weights be those of one host, or whole hosts",
        )
    return slice(first, last)


def forward(model: keras.Model) -> Callable[[Array], Array]:
    """A function from a batch, or this process's part of one, to the outputs of the whole batch, on every process."""
    active = keras.distribution.distribution()
    if active is None:
        return lambda batch: np.asarray(model.predict_on_batch(batch))
    import jax

    replicated = jax.sharding.NamedSharding(active.device_mesh.backend_mesh, jax.sharding.PartitionSpec())
    answer = jax.jit(
        lambda trained, other, batch: model.stateless_call(trained, other, batch, training=False)[0],
        out_shardings=replicated,
    )

    def outputs(batch: Array) -> Array:
        layout = active.get_data_layout(batch.shape).backend_layout
        state = [[v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables)]
        return np.asarray(answer(*state, jax.make_array_from_process_local_data(layout, batch)))

    return outputs


def whole(variable: Any) -> Array:
    """The values of a Keras variable, gathered where they lie on several hosts: all processes have to ask."""
    tensor = variable.value if hasattr(variable, "value") else variable
    if getattr(tensor, "is_fully_addressable", True) or tensor.is_fully_replicated:
        return np.asarray(keras.ops.convert_to_numpy(variable))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(tensor, tiled=True))


def require_orbax() -> None:
    """Raise MissingExtraError where states in parts could not be saved."""
    if importlib.util.find_spec("orbax") is None:
        raise MissingExtraError(
            "strategy: model needs orbax-checkpoint, which is not installed", install_command("cluster")
        )


def save_parts(folder: Path, variables: Sequence[Any]) -> None:
    """Write variables into a folder, each process what it holds; all have to call. Orbax makes it appear as a whole."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as writer:
        writer.save(folder.absolute(), {f"{place:05d}": v.value for place, v in enumerate(variables)}, force=True)


def restore_parts(folder: Path, variables: Sequence[Any]) -> None:
    """Put them back, on any number of devices. Raises TrainingError where they cannot be read or do not fit."""
    import jax
    import orbax.checkpoint as ocp

    require_orbax()
    wanted = {
        f"{place:05d}": jax.ShapeDtypeStruct(v.value.shape, v.value.dtype, sharding=v.value.sharding)
        for place, v in enumerate(variables)
    }
    try:
        with ocp.StandardCheckpointer() as reader:
            found = reader.restore(folder.absolute(), wanted)
    except (ValueError, KeyError, OSError) as error:
        raise TrainingError(f"{folder}: not a readable checkpoint: {error}") from error
    for place, variable in enumerate(variables):
        variable.assign(found[f"{place:05d}"])
