"""How fast this machine trains this model, measured in a few seconds: for the choice of precision, and for people."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import Config
from imgrec_cli.dataset import Dataset
from imgrec_cli.errors import InputError, TrainingError
from imgrec_cli.imaging import load_pixels
from imgrec_cli.machine import available_cores, available_memory_bytes
from imgrec_cli.progress import Listener, Note
from imgrec_cli.storage import located
from imgrec_cli.training.augment import Augment
from imgrec_cli.training.features import head_is_enough
from imgrec_cli.training.fit import compiled, step_flop, steps_per_execution
from imgrec_cli.training.input import Source, without_autotuning
from imgrec_cli.training.model import training_model
from imgrec_cli.training.needs import SAFE_SHARE, memory_bytes
from imgrec_cli.training.phases import phases
from imgrec_cli.training.runtime import Machine, Precision, out_of_memory_errors

# bfloat16 rounds; it has to be worth something
LEAST_GAIN = 1.15
# below this a probe would cost more than it can save
SHORT_TRAINING_SECONDS = 60
ASSUMED_FLOPS = 50e9

DEFAULT_BATCH_SIZE = 32
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
LEAST_STEPS = 20  # of an epoch
NEARLY = 0.9


def choose_precision(config: Config, classes: int, images: int, machine: Machine) -> tuple[Precision, str]:
    """The arithmetic of the step, and the reason in a few words.

    What the config says; else bfloat16 on a device that is known to have it, on a CPU only where a short probe of this
    very model finds it faster by 15 %; else float32. `images` is the number of training images.
    """
    if config.train.precision != "auto":
        return config.train.precision, "as asked"
    if head_is_enough(config):
        return "float32", "only the last layer is trained"
    if not machine.bfloat16:
        return "float32", "bfloat16 is not known to be fast here"
    if machine.device.startswith("gpu"):
        return "bfloat16", "the GPU has it"
    wanted = DEFAULT_BATCH_SIZE if config.train.batch_size == "auto" else config.train.batch_size
    size = min(wanted, images)
    config = with_batch_size(config, size)
    steps = images // size * phases(config)[-1].train.epochs
    if step_flop(config, classes) * steps / ASSUMED_FLOPS < SHORT_TRAINING_SECONDS:
        return "float32", "a short training needs no more"
    seconds: dict[Precision, float] = {
        precision: step_seconds(with_precision(config, precision), classes) for precision in ("float32", "bfloat16")
    }
    gain = seconds["float32"] / seconds["bfloat16"]
    return ("bfloat16" if gain >= LEAST_GAIN else "float32"), f"bfloat16 runs at {gain:.2f}× the speed of float32 here"


def choose_batch_size(config: Config, classes: int, images: int, on_event: Listener) -> Config:
    """The config with a number for `train.batch_size: auto`: the smallest of those that train nearly as fast as the
    fastest, among the powers of two that leave 20 steps an epoch and fit into memory, by a probe of each."""
    if config.train.batch_size != "auto":
        return config
    speeds: dict[int, float] = {}
    if head_is_enough(config):
        return with_batch_size(config, min(DEFAULT_BATCH_SIZE, images))
    for size in BATCH_SIZES:
        candidate = with_batch_size(config, min(size, images))
        if speeds and (size * LEAST_STEPS > images or not _fits(candidate, classes)):
            break
        try:
            speeds[size] = size / step_seconds(candidate, classes, 0.5)
        except out_of_memory_errors():
            break
    if not speeds:
        raise TrainingError(
            f"a batch of {BATCH_SIZES[0]} images does not fit into memory", "use a smaller image.size or model"
        )
    fastest = max(speeds.values())
    chosen = next(size for size, speed in speeds.items() if speed >= NEARLY * fastest)
    told = ", ".join(f"{size}: {speed:,.0f}" for size, speed in speeds.items())
    on_event(Note(f"train.batch_size: auto is {chosen} (images/s by batch size: {told})"))
    return with_batch_size(config, min(chosen, images))


def fitting_batch_size(config: Config, classes: int) -> int:
    """The largest half, quarter, … of the config's batch size with which a step fits into memory, by trying; 0 where
    none does."""
    size = config.train.images_per_step // 2
    while size:
        try:
            step_seconds(with_batch_size(config, size), classes, 0.0)
            return size
        except out_of_memory_errors():
            size //= 2
    return 0


def _fits(config: Config, classes: int) -> bool:
    available = available_memory_bytes()
    on_cpu = config.runtime.device == "cpu"
    return not on_cpu or available is None or memory_bytes(config, classes) <= SAFE_SHARE * available


def with_batch_size(config: Config, size: int) -> Config:
    """The config with this batch size in place of its own."""
    return config.model_copy(update={"train": config.train.model_copy(update={"batch_size": size})})


def with_precision(config: Config, precision: Precision) -> Config:
    """The config with this precision in place of its own."""
    return config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})


def step_seconds(config: Config, classes: int, seconds: float = 1.0) -> float:
    """Seconds of one compiled training step, augmentation included, on a batch already in memory: the median of a few.

    Measures for about `seconds` after the compilation.
    """
    block = steps_per_execution(config, classes)
    model = compiled(training_model(config, classes), config, block, block)
    size = config.train.images_per_step
    pixels = np.random.default_rng(0).integers(0, 256, (size, *config.image.size, config.image.channels), np.uint8)
    labels = np.arange(size) % classes
    return (
        _median_seconds(lambda: model.fit(repeated(pixels, labels, block), verbose=0, shuffle=False), seconds) / block
    )


def repeated(pixels: NDArray[np.uint8], labels: NDArray[np.int64], steps: int) -> Any:
    """One batch, `steps` times over: the input that costs nothing."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        batch = pixels, labels.astype(np.int32)
        return without_autotuning(tf.data.Dataset.from_tensors(batch).repeat(steps).prefetch(steps))
    every = np.tile(np.arange(len(pixels)), steps)
    return Source(pixels, every, labels[every], len(pixels), 0).batches(1, 0, steps)


def _median_seconds(work: Callable[[], Any], seconds: float) -> float:
    """Median seconds of one call; the first two calls, which compile, are not counted."""
    work()
    work()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 50):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


@dataclass(frozen=True, slots=True)
class Speeds:
    """Images per second of each part alone and of the whole; FLOP/s of the step and of a large matrix product."""

    decode: float
    input: float
    augment: float | None
    step: float
    whole: float
    step_flops: float
    matrix_product_flops: float
    epoch_seconds: float

    @property
    def verdict(self) -> str:
        """What limits training, and what to change."""
        if self.whole < 0.9 * self.step and self.input < 1.5 * self.step:
            return "input-bound: the images arrive too slowly; a larger train.batch_size or a faster disk helps"
        share = self.step_flops / self.matrix_product_flops
        if share < 0.25:
            return (
                f"compute-bound at {share:.0%} of a matrix product's speed: many small operations; "
                "a larger train.batch_size, fewer but wider layers, or less augmentation help"
            )
        return f"compute-bound at {share:.0%} of a matrix product's speed: only a smaller model or image is faster here"


def measure(config: Config, dataset: Dataset) -> Speeds:
    """Measure every part of training; the config is resolved. Takes some seconds and changes nothing.

    Raises InputError for a frozen backbone without augmentation, where there is next to nothing to measure.
    """
    if head_is_enough(config):
        raise InputError(
            "a frozen backbone without augmentation is not trained: its features are computed once",
            "add augmentation, or set model.freeze: false",
        )
    classes, batch_size = len(dataset.class_names), config.train.images_per_step
    rows, labels = dataset.rows("train"), dataset.labels("train")
    block = steps_per_execution(config, classes)
    steps = max(20, 2 * block)

    again = np.resize(np.arange(len(rows)), steps * batch_size)
    source = Source(dataset.pixels, rows[again], labels[again], batch_size, config.seed)
    step = step_seconds(config, classes)
    input_seconds = _median_seconds(lambda: [None for _ in source.batches(1, 0, block)], 0.5) / steps
    model = compiled(training_model(config, classes), config, block, block)
    whole = _median_seconds(lambda: model.fit(source.batches(1, 0, block), verbose=0, shuffle=False), 1.0) / steps
    augment = Augment(config.augment, seed=config.seed)
    batch = keras.ops.convert_to_tensor(dataset.pixels[np.sort(np.resize(rows, batch_size))])
    change = _compiled_function(lambda images: augment(images, training=True))
    return Speeds(
        decode=_decoded_per_second(dataset),
        input=batch_size / input_seconds,
        augment=batch_size / _median_seconds(lambda: np.asarray(change(batch))[0], 0.3) if config.augment else None,
        step=batch_size / step,
        whole=batch_size / whole,
        step_flops=step_flop(config, classes) / step,
        matrix_product_flops=_matrix_product_flops("bfloat16" if config.train.precision == "bfloat16" else "float32"),
        epoch_seconds=whole * (len(rows) // batch_size),
    )


def _decoded_per_second(dataset: Dataset) -> float:
    """Files decoded per second on all cores, from up to 200 of the training images."""
    files = [located(example.file) for example in dataset.examples if example.split == "train"]
    chosen = files[:: max(1, len(files) // 200)]
    with ThreadPoolExecutor(available_cores()) as pool:
        started = time.perf_counter()
        list(pool.map(lambda file: load_pixels(file, dataset.spec), chosen))
        return len(chosen) / (time.perf_counter() - started)


def _matrix_product_flops(dtype: str, side: int = 2048) -> float:
    """FLOP/s of one large square matrix product, the most that this machine can be asked for."""
    matrix = keras.ops.cast(keras.random.normal((side, side), seed=0), dtype)
    product = _compiled_function(lambda a: keras.ops.sum(keras.ops.matmul(a, a)))
    return float(2 * side**3 / _median_seconds(lambda: float(product(matrix)), 0.5))


def _compiled_function(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function as a TensorFlow graph; on JAX as it is, because a layer's seed cannot change under `jit`."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    graph: Callable[[Any], Any] = tf.function(function)
    return graph
