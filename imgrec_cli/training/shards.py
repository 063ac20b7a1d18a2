"""The same bits on any number of devices: every batch is computed in the same parts, and their gradients are added in
the same order.

Sums of floats depend on their order, and training amplifies the last bit (docs/clusters.md). What the compiler makes of
a part must then not depend on how many of them a device takes either: barriers keep it from looking beyond one. Weights
that lie in parts are gathered for the step, so that no sum runs across devices, and each device keeps its part of the
gradients: the sharded data parallelism of ZeRO (Rajbhandari et al. 2020, section 5) in a fixed order.
"""

from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import PartitionSpec

from imgrec_cli.errors import InputError

Tree = Any
# between the seeds of two parts: 2³² over the golden ratio, so that they are far from each other
_STRIDE = np.uint32(0x9E3779B9)


class InShards(keras.Model):
    """A model on JAX whose training step takes a batch in `shards` parts, a power of two.

    Random layers draw for each part by itself; pictures are mixed within a part.
    """

    shards: int

    def train_step(self, state: Tree, data: Tree) -> Tree:
        trainable, other, kept, sums = state
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        seeds = [str(v.dtype) == "uint32" for v in self.non_trainable_variables]
        active = keras.distribution.distribution()
        axes = () if active is None else tuple(active.device_mesh.axis_names)
        devices = 1 if active is None else active.device_mesh.devices.size
        lying = [
            PartitionSpec() if active is None else active.get_variable_layout(v).backend_layout.spec
            for v in self.trainable_variables
        ]

        def part(variables: Tree, number: Any, images: Any, labels: Any) -> Tree:
            (weights, fixed, sums), number, images, labels = jax.lax.optimization_barrier(
                (variables, number, images, labels)
            )
            moved = [v.at[0].add(number * _STRIDE) if seed else v for v, seed in zip(fixed, seeds, strict=True)]
            # no variables of the optimizer: a loss is scaled by them in float16 alone
            (_, (loss, logits, after, _)), gradients = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)(
                weights, moved, sums, images, labels, None, training=True, optimizer_variables=()
            )
            drawn = [v for v, seed in zip(after, seeds, strict=True) if seed]
            return jax.lax.optimization_barrier((gradients, loss, logits, drawn))

        def of_one_device(variables: Tree, x: Tree, y: Tree) -> Tree:
            weights, *rest = variables
            variables = ([_gathered(v, spec) for v, spec in zip(weights, lying, strict=True)], *rest)
            mine = self.shards // devices
            first = jax.lax.axis_index(axes) * mine if axes else 0
            numbers = (first + jax.numpy.arange(mine)).astype("uint32")
            outputs, seeds_after = [], []
            summed: list[tuple[Tree, int]] = []
            for place, (images, labels) in enumerate(
                zip(jax.numpy.split(x, mine), jax.numpy.split(y, mine), strict=True)
            ):
                gradients, loss, logits, drawn = part(variables, numbers[place], images, labels)
                outputs.append(logits)
                seeds_after.append(drawn)
                added, parts = (gradients, loss), 1
                while summed and summed[-1][1] == parts:  # in pairs, so that few gradients are held at once
                    added, parts = jax.tree.map(jax.numpy.add, summed.pop()[0], added), 2 * parts
                variables, added = jax.lax.optimization_barrier((variables, added))  # one part after the other
                summed.append((added, parts))
            ((added, _),), distance = summed, 1
            while distance < devices:  # each adds what its neighbour at this distance has: all get the same sum
                pairs = [(device, device ^ distance) for device in range(devices)]
                added = jax.tree.map(lambda v, to=pairs: v + jax.lax.ppermute(v, axes, to), added)
                distance *= 2
            gradients, loss = jax.lax.optimization_barrier(jax.tree.map(lambda v: v / self.shards, added))
            gradients = [_own_part(v, spec) for v, spec in zip(gradients, lying, strict=True)]
            own = [v.at[0].add(-numbers[0] * _STRIDE) for v in seeds_after[0]]
            return gradients, loss, jax.numpy.concatenate(outputs), own

        variables = (trainable, other, sums)
        if active is None:
            gradients, loss, logits, drawn = of_one_device(variables, x, y)
        else:
            divided, whole = PartitionSpec(axes), PartitionSpec()
            gradients, loss, logits, drawn = jax.shard_map(
                of_one_device,
                mesh=active.device_mesh.backend_mesh,
                in_specs=((lying, whole, whole), divided, divided),
                out_specs=(lying, whole, divided, whole),
                check_vma=False,  # it cannot see that the sums are the same everywhere
            )(variables, x, y)
        trainable, kept = self.optimizer.stateless_apply(kept, gradients, trainable)
        logs, sums = self._update_metrics_variables(sums, loss, x, y, logits, None)  # as Keras's own step does
        advanced = iter(drawn)
        other = [next(advanced) if seed else v for v, seed in zip(other, seeds, strict=True)]
        return logs, (trainable, other, kept, sums)


def _gathered(part: Any, spec: PartitionSpec) -> Any:
    """A whole weight from the parts that devices hold of it."""
    for axis, name in enumerate(spec):
        if name is not None:
            part = jax.lax.all_gather(part, name, axis=axis, tiled=True)
    return part


def _own_part(whole: Any, spec: PartitionSpec) -> Any:
    """What this device holds of a weight, or of its gradient."""
    for axis, name in enumerate(spec):
        if name is not None:
            size = whole.shape[axis] // jax.lax.axis_size(name)
            whole = jax.lax.dynamic_slice_in_dim(whole, jax.lax.axis_index(name) * size, size, axis)
    return whole


def in_shards(model: keras.Model, shards: int) -> keras.Model:
    """The same layers and weights, trained in that many parts of every batch. Raises InputError for batch norms that
    learn: their statistics are those of a whole batch."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            raise InputError(
                f"distribute.shards: {layer.name} is a batch norm, and needs the whole batch at once",
                "leave distribute.shards out; results then depend on the number of devices by rounding",
            )
    found = InShards(model.inputs[0], model.outputs[0], name=model.name)
    found.shards = shards
    return found
