"""The machine before Keras is imported: backend, device, threads."""

import functools
import importlib.util
import logging
import os
import sys
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

from imgrec_cli.config import Config, Runtime
from imgrec_cli.errors import InputError, MissingExtraError, install_command
from imgrec_cli.machine import available_cores, cpu_flags, native_messages_hidden, nvidia_cards

Precision = Literal["float32", "bfloat16"]
BFLOAT16_CAPABILITY = (8, 0)  # NVIDIA's Ampere and later
JAX_ON_GPU = 'pip install "jax[cuda13]"'


@dataclass(frozen=True, slots=True)
class Machine:
    """What training runs on; `device` is `cpu` or `gpu:<index>`, `name` is for people.

    `bfloat16`: whether the device is known to have instructions for it. `deterministic`: whether all operations give
    the same bits each time.
    """

    backend: str
    device: str
    name: str
    threads: int
    bfloat16: bool
    deterministic: bool = False
    warnings: tuple[str, ...] = ()


def start(runtime: Runtime) -> Machine:
    """Import the backend with this device and these threads; one process can do this once.

    Raises MissingExtraError where Keras or the backend is not installed, InputError where the device is not there.
    """
    backend = "tensorflow" if runtime.backend == "auto" else runtime.backend
    for package, extra in (("keras", "train"), (backend, "train" if backend == "tensorflow" else "jax")):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"training needs {package}, which is not installed", install_command(extra))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # it warns of functions that are traced again and again, which every new model does
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    threads = available_cores() if runtime.threads == "auto" else runtime.threads
    loaded = sys.modules.get("keras")
    if loaded is not None and loaded.backend.backend() != backend:
        raise InputError(
            f"runtime.backend: {backend} was asked for, this process has loaded Keras on another one already",
            "start a new process",
        )
    os.environ["KERAS_BACKEND"] = backend
    if backend == "jax":
        if runtime.threads != "auto":
            raise InputError(
                f"runtime.threads: {runtime.threads} cannot be set on JAX, which uses all cores",
                "leave it at auto, or limit the process: taskset -c 0 imgrec …",
            )
        if runtime.deterministic is True:
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
        with native_messages_hidden():
            machine = _start_jax(runtime.device)
        return replace(machine, deterministic=machine.device == "cpu" or runtime.deterministic is True)
    with native_messages_hidden():
        machine = _start_tensorflow(runtime.device, threads)
        machine = replace(machine, deterministic=_deterministic_tensorflow(runtime.deterministic, machine.device))
        from imgrec_cli.training import fused

    if missing := fused.missing_kernels():
        text = f"training is slower than it could be: this Keras or TensorFlow lacks {', '.join(missing)}"
        machine = replace(machine, warnings=(*machine.warnings, text))
    return machine


def strategy(config: Config, machine: Machine, processes: int) -> Literal["none", "data", "model"]:
    """What `distribute.strategy: auto` stands for on this machine."""
    if config.distribute.strategy != "auto":
        return config.distribute.strategy
    if machine.backend != "jax":
        return "none"
    import jax

    one_was_named = ":" in config.runtime.device or config.runtime.device == "cpu"
    several = machine.device != "cpu" and jax.device_count() > 1 and not one_was_named
    return "data" if processes > 1 or several else "none"


def spread(machine: Machine, processes: int) -> Machine:
    """The machine with the number of its devices, and of hosts' processes, in its name."""
    import jax

    devices = jax.device_count("cpu") if machine.device == "cpu" else jax.device_count()
    return replace(machine, name=f"{machine.name}; {devices} devices of {processes} process{'es' * (processes > 1)}")


def _start_tensorflow(device: str, threads: int) -> Machine:
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        threads = tf.config.threading.get_intra_op_parallelism_threads() or available_cores()
    gpus = tf.config.list_physical_devices("GPU")
    if device == "cpu" or (device == "auto" and not gpus):
        if gpus:
            _only(tf, None)
        return _cpu("tensorflow", threads, install_command("train-gpu") if device == "auto" else "")
    gpu, index = _chosen(gpus, device, "TensorFlow", install_command("train-gpu"))
    _only(tf, gpu)
    details = tf.config.experimental.get_device_details(gpu)
    return Machine(
        "tensorflow",
        f"gpu:{index}",
        str(details.get("device_name", "GPU")),
        threads,
        details.get("compute_capability", (0, 0)) >= BFLOAT16_CAPABILITY,
    )


@functools.cache
def _tensorflow_kept_deterministic() -> bool:
    """Keep TensorFlow to operations that give the same bits each time; within one process there is no way back."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    return True


def _deterministic_tensorflow(asked: bool | str, device: str) -> bool:
    """Whether TensorFlow is kept to deterministic operations, which is arranged where it is wanted."""
    if asked is True or (asked == "auto" and device == "cpu"):
        return _tensorflow_kept_deterministic()
    return bool(_tensorflow_kept_deterministic.cache_info().currsize)


def _only(tf: Any, gpu: Any | None) -> None:
    """Show TensorFlow one GPU or none, and let its memory grow as needed."""
    wanted = [gpu] if gpu else []
    try:
        tf.config.set_visible_devices(wanted, "GPU")
        if gpu:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:  # an earlier training of this process has started the devices
        if tf.config.get_visible_devices("GPU") != wanted:
            raise InputError(
                "runtime.device: not the device that this process trains on already", "start a new process"
            ) from error


def _start_jax(device: str) -> Machine:
    # JAX would take three quarters of the GPU's memory at once, and look for a GPU even where none is wanted
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    threads = os.cpu_count() or 1
    if importlib.util.find_spec("tensorflow") is not None:
        import tensorflow as tf  # Keras imports it where it is installed: keep it off the GPU's memory

        tf.config.set_visible_devices([], "GPU")
    gpus = [found for found in jax.local_devices() if found.platform != "cpu"]
    if device == "cpu" or (device == "auto" and not gpus):
        jax.config.update("jax_default_device", jax.local_devices(backend="cpu")[0])
        return _cpu("jax", threads, JAX_ON_GPU if device == "auto" else "")
    gpu, index = _chosen(gpus, device, "JAX", JAX_ON_GPU)
    jax.config.update("jax_default_device", gpu)
    capability = tuple(int(part) for part in str(getattr(gpu, "compute_capability", "0.0")).split("."))
    return Machine("jax", f"gpu:{index}", str(gpu.device_kind), threads, capability >= BFLOAT16_CAPABILITY)


def _cpu(backend: str, threads: int, remedy: str) -> Machine:
    """The CPU, with a warning about a GPU that lies idle where there is a `remedy`."""
    idle = tuple(_unusable(card, backend, remedy) for card in nvidia_cards()[:1]) if remedy else ()
    name = f"CPU with {threads} thread{'s' if threads > 1 else ''}"
    # XLA and the JAX backend gain nothing from bfloat16 on CPUs (measured: the same speed)
    fast = backend == "tensorflow" and bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})
    return Machine(backend, "cpu", name, threads, fast, warnings=idle)


def _chosen(gpus: list[Any], device: str, backend: str, remedy: str) -> tuple[Any, int]:
    """The GPU that `device` names, and its index. Raises InputError where it is not there."""
    index = int(device.partition(":")[2] or 0)
    if index < len(gpus):
        return gpus[index], index
    cards = nvidia_cards()
    raise InputError(
        f"runtime.device: {device} was asked for, {backend} finds {len(gpus)} GPUs here",
        _unusable(cards[0], backend, remedy) if cards else "use runtime.device: auto, or cpu",
    )


def _unusable(card: str, backend: str, remedy: str) -> str:
    return f"{card} is present but {backend} cannot use it; {remedy}"


@functools.cache
def fused_kernels() -> ModuleType | None:
    """The module with TensorFlow's fused kernels; None on another backend, or where a kernel is missing.

    Everything fused comes through here, so that falling back to plain Keras is one decision.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return None
    from imgrec_cli.training import fused

    return None if fused.missing_kernels() else fused


def forget_models() -> None:
    """Let go of what Keras keeps of the models of this process, before another one is trained in it."""
    import keras

    keras.utils.clear_session()


def out_of_memory_errors() -> tuple[type[Exception], ...]:
    """What the loaded backend raises where a device has too little memory."""
    found: list[type[Exception]] = []
    if "tensorflow" in sys.modules:
        found.append(sys.modules["tensorflow"].errors.ResourceExhaustedError)
    return (MemoryError, *found)
