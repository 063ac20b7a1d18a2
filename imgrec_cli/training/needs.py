"""What a training needs of disk and memory, estimated before it begins and checked where there is too little."""

import math
import shutil
from pathlib import Path

from imgrec_cli.config import (
    Adam,
    AdamW,
    BackboneModel,
    Config,
    Lion,
    Muon,
    RMSprop,
    Sgd,
    layer_table,
    values_of_layers,
)
from imgrec_cli.config.shapes import BACKBONES
from imgrec_cli.errors import DiskSpaceError, InputError
from imgrec_cli.machine import available_memory_bytes
from imgrec_cli.progress import Listener, Note, Warn, readable_size
from imgrec_cli.training.features import head_is_enough

_FLOAT = 4  # bytes of a weight, in every precision
# Every value of a layer's output is held for the way back, beside gradients and the buffers of the kernels. Measured
# peaks of the documents' stacks lie at 1.9 to 2.3 times the outputs; backbones hold fewer of them, 1.0 to 1.1 times.
_COPIES_OF_OUTPUTS, _COPIES_IN_BACKBONES = 2.5, 1.3
SAFE_SHARE = 0.8  # of the memory available: others take some meanwhile
_PROCESS_BYTES = 700e6  # Python with TensorFlow


def slots(config: Config) -> int:
    """Numbers that the optimizer keeps per weight, an average of the weights among them."""
    match config.optimizer:
        case Adam() | AdamW() | Muon():  # Muon keeps one for the kernels of dense layers
            kept = 2
        case Lion():
            kept = 1
        case Sgd(momentum=momentum):
            kept = 1 if momentum else 0
        case RMSprop(momentum=momentum):
            kept = 2 if momentum else 1
    return kept + (config.train.ema is not None)


def disk_bytes(config: Config, classes: int) -> tuple[int, int, int]:
    """Bytes of one checkpoint, of the best weights, and of the bundle."""
    rows = layer_table(config, classes)
    weights = sum(row.parameters for row in rows)
    behind = sum(row.parameters for row in rows if row.name in ("head", "softmax"))
    trained = behind if head_is_enough(config) else weights
    state = _FLOAT * trained * (1 + slots(config))
    return state + _FLOAT * trained, _FLOAT * trained, _FLOAT * weights


def check_disk(config: Config, classes: int, images: int, folder: Path, on_event: Listener) -> None:
    """Say how much disk a run on so many training images needs. Raises DiskSpaceError where less is free.

    Two checkpoints are kept, and a third is there while it is written; and what a teacher answers for every image.
    """
    checkpoint, best, bundle = disk_bytes(config, classes)
    meanwhile = 3 * checkpoint + (_FLOAT * images * classes if config.teacher else 0)
    there = sum(file.stat().st_size for file in (folder / "checkpoints").glob("*.npz"))
    needed = max(0, meanwhile + best + bundle - there)
    free = shutil.disk_usage(folder).free
    told = f"{readable_size(meanwhile)} of it for checkpoints while it trains"
    on_event(Note(f"disk: {readable_size(needed)} for the run, {told}; {readable_size(free)} are free"))
    if needed > free:
        raise DiskSpaceError(
            f"{folder}: the run needs {readable_size(needed)}, {told}, and {readable_size(free)} are free",
            "make room, or start imgrec in a folder on a larger disk: runs are kept in ./runs",
        )


def memory_bytes(config: Config, classes: int) -> int:
    """Estimate of the memory that training takes at its peak, the process itself included, without the images' pack."""
    rows = layer_table(config, classes)
    weights = sum(row.parameters for row in rows)
    if head_is_enough(config):
        return round(_PROCESS_BYTES + _FLOAT * weights)
    held = _COPIES_OF_OUTPUTS * values_of_layers(config)
    if isinstance(config.model, BackboneModel):
        outputs = BACKBONES[config.model.name, config.model.width].outputs_per_pixel
        held += _COPIES_IN_BACKBONES * outputs * math.prod(config.image.size)
    size = 2 if config.train.precision == "bfloat16" else 4
    # float32 pixels before and after augmentation
    pixels = 2 * _FLOAT * math.prod(config.image.size) * config.image.channels
    step = config.train.images_per_step * (size * held + pixels)
    # weight, gradient, best weights so far, a copy while a checkpoint is written
    return round(_PROCESS_BYTES + _FLOAT * weights * (4 + slots(config)) + step)


def check_memory(config: Config, classes: int, on_event: Listener) -> None:
    """Raise InputError where a training on the CPU is sure to exhaust the memory, warn where it may.

    Linux ends a process that takes more than there is, without a word: this has to be told before.
    """
    available = available_memory_bytes()
    if available is None:
        return
    needed = memory_bytes(config, classes)
    text = f"training needs about {readable_size(needed)} of memory, and {readable_size(available)} are available"
    if needed <= SAFE_SHARE * available:
        return
    fitting = estimated_batch_size(config, classes, available)
    hint = f"train.batch_size={fitting} would fit" if fitting else "use a smaller image.size or a smaller model"
    if needed > 1.5 * available:
        raise InputError(text, hint)
    on_event(Warn(f"{text}; {hint}"))


def estimated_batch_size(config: Config, classes: int, available: float) -> int:
    """The largest power of two below the config's batch size that is estimated to fit into memory; 0 where none is."""
    size = 2 ** (config.train.images_per_step - 1).bit_length() // 2
    while size:
        smaller = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": size})})
        if memory_bytes(smaller, classes) <= SAFE_SHARE * available:
            return size
        size //= 2
    return 0
