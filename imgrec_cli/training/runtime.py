"""The machine before Keras is imported: backend, device, threads, precision, seeds."""

import functools
import importlib.util
import os
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Literal

from imgrec_cli.config import Runtime
from imgrec_cli.errors import InputError, MissingExtraError
from imgrec_cli.machine import available_cores, native_messages_hidden, nvidia_cards

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What training runs on; `device` is `cpu` or `gpu:<index>`, `name` is for people."""

    backend: str
    device: str
    name: str
    threads: int
    warnings: tuple[str, ...] = ()


def start(runtime: Runtime) -> Machine:
    """Import the backend with this device and these threads; one process can do this once.

    Raises MissingExtraError where Keras or the backend is not installed, InputError where the device is not there.
    """
    backend = "tensorflow" if runtime.backend == "auto" else runtime.backend
    for package, extra in (("keras", "train"), (backend, "train" if backend == "tensorflow" else "jax")):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"training needs {package}, which is not installed", f"pip install 'imgrec[{extra}]'"
            )
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    threads = available_cores() if runtime.threads == "auto" else runtime.threads
    with native_messages_hidden():
        machine = _start_tensorflow(runtime.device, threads)
        from imgrec_cli.training import fused

    if missing := fused.missing_kernels():
        text = f"training is slower than it could be: this Keras or TensorFlow lacks {', '.join(missing)}"
        machine = replace(machine, warnings=(*machine.warnings, text))
    return machine


def _start_tensorflow(device: str, threads: int) -> Machine:
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        threads = tf.config.threading.get_intra_op_parallelism_threads() or available_cores()
    gpus = tf.config.list_physical_devices("GPU")
    cpu_name = f"CPU with {threads} thread{'s' if threads > 1 else ''}"
    if device == "cpu" or (device == "auto" and not gpus):
        tf.config.set_visible_devices([], "GPU")
        idle = () if device == "cpu" else tuple(map(_unusable, nvidia_cards()[:1]))
        return Machine("tensorflow", "cpu", cpu_name, threads, idle)
    index = int(device.partition(":")[2] or 0)
    if index >= len(gpus):
        cards = nvidia_cards()
        raise InputError(
            f"runtime.device: {device} was asked for, TensorFlow finds {len(gpus)} GPUs here",
            _unusable(cards[0]) if cards else "use runtime.device: auto, or cpu",
        )
    tf.config.set_visible_devices(gpus[index], "GPU")
    tf.config.experimental.set_memory_growth(gpus[index], True)
    name = tf.config.experimental.get_device_details(gpus[index]).get("device_name", "GPU")
    return Machine("tensorflow", f"gpu:{index}", str(name), threads)


def _unusable(card: str) -> str:
    return f"{card} is present but TensorFlow cannot use it: pip install 'imgrec[train-gpu]'"


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
