"""The runtimes that answer from a bundle's model: LiteRT, which comes with imgrec, and ONNX Runtime as the second."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.bundle import COPY_AGAIN, TARGETS, Manifest, read_file
from imgrec_cli.errors import InputError, MissingExtraError
from imgrec_cli.machine import native_messages_hidden

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float32]


class Engine(Protocol):
    """A model in its runtime; it belongs to one thread at a time, for it keeps its buffers between calls."""

    def outputs(self, pixels: Pixels) -> tuple[Scores, Scores | None]:
        """Images uint8 [N, H, W, C] → probabilities float32 [N, classes], and unfamiliarity float32 [N] where the model
        has it."""
        ...


class LiteRT:
    """A `.tflite` file in LiteRT. Raises ValueError where it is none, or takes and gives what no bundle does."""

    _greeted = False

    def __init__(self, model: Path | bytes, threads: int, shape: tuple[int, ...], classes: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        given = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        # LiteRT greets once a process; later ones may be opened while other threads print
        with native_messages_hidden(only_if=not LiteRT._greeted):
            self._interpreter: Any = Interpreter(**given, num_threads=threads)
            self._takes = self._interpreter.get_input_details()[0]
            self._fixed = int(self._takes["shape_signature"][0]) > 0
            # by rank: exporters do not keep the order of outputs
            outputs = {len(output["shape"]): output for output in self._interpreter.get_output_details()}
            takes = f"{self._takes['dtype'].__name__} {self._takes['shape'][1:].tolist()}"
            gives = outputs[2]["shape"][1:].tolist() if 2 in outputs else []
            if takes not in (f"uint8 {list(shape)}", f"int8 {list(shape)}") or gives != [classes]:
                raise ValueError(
                    f"takes {takes} and gives {gives}; the manifest says uint8 {list(shape)} and {classes} classes"
                )
            self._scores, self._unfamiliarity = outputs[2], outputs.get(1)
            self._batch = 0
            self._prepare(1)
        LiteRT._greeted = True

    def _prepare(self, images: int) -> None:
        if images != self._batch:
            if not self._fixed:
                self._interpreter.resize_tensor_input(self._takes["index"], (images, *self._takes["shape"][1:]))
            self._interpreter.allocate_tensors()
            self._batch = images

    def outputs(self, pixels: Pixels) -> tuple[Scores, Scores | None]:
        if self._fixed and len(pixels) > 1:  # such as a microcontroller's model
            one_by_one = [self.outputs(pixels[i : i + 1]) for i in range(len(pixels))]
            second = [values for _, values in one_by_one if values is not None]
            return np.concatenate([scores for scores, _ in one_by_one]), np.concatenate(second) if second else None
        self._prepare(len(pixels))
        if self._takes["dtype"] == np.int8:
            pixels = (pixels ^ 128).view(np.int8)  # minus 128
        self._interpreter.set_tensor(self._takes["index"], np.ascontiguousarray(pixels))
        self._interpreter.invoke()
        unfamiliarity = None if self._unfamiliarity is None else self._read(self._unfamiliarity)
        return self._read(self._scores), unfamiliarity

    def _read(self, output: dict[str, Any]) -> Scores:
        values = self._interpreter.get_tensor(output["index"])
        if values.dtype == np.int8:
            scale, zero = output["quantization"]
            values = (values.astype(np.float32) - zero) * np.float32(scale)
        return np.asarray(values, np.float32)


def operators_of(path: Path) -> list[str]:
    """Names of the operators of a `.tflite` file, each once, in their order."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with native_messages_hidden():
        # as they stand in the file, before a delegate takes some of them over
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter: Any = Interpreter(str(path), experimental_op_resolver_type=kernels)
        return list(dict.fromkeys(details["op_name"] for details in interpreter._get_ops_details()))


class OnnxRuntime:
    """An `.onnx` file in ONNX Runtime. Raises ValueError where it is none, or takes and gives what no bundle does."""

    def __init__(self, model: Path | bytes, threads: int, shape: tuple[int, ...], classes: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(
                "this bundle is for ONNX Runtime, which is not installed", "pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its kinds are its own, one per status code
            raise ValueError(str(error).splitlines()[0]) from error
        takes = self._session.get_inputs()[0]
        outputs = {len(output.shape): output for output in self._session.get_outputs()}
        gives = list(outputs[2].shape[1:]) if 2 in outputs else []
        if list(takes.shape[1:]) != list(shape) or takes.type != "tensor(uint8)" or gives != [classes]:
            raise ValueError(
                f"takes {takes.type} {takes.shape[1:]} and gives {gives}; the manifest says uint8 {list(shape)} and "
                f"{classes} classes"
            )
        self._input, self._names = takes.name, [outputs[rank].name for rank in (2, 1) if rank in outputs]

    def outputs(self, pixels: Pixels) -> tuple[Scores, Scores | None]:
        scores, *second = self._session.run(self._names, {self._input: np.ascontiguousarray(pixels)})
        return scores, second[0] if second else None


def open_engine(bundle: Path, manifest: Manifest, threads: int) -> Engine:
    """The bundle's model in its runtime, on `threads` cores.

    Raises InputError where the model is damaged or no runtime of imgrec takes it, MissingExtraError where that is not
    installed.
    """
    runtime, name = TARGETS[manifest.target].runtime, manifest.model
    kinds: dict[str, type[LiteRT] | type[OnnxRuntime]] = {"litert": LiteRT, "onnx": OnnxRuntime}
    if runtime not in kinds:
        raise InputError(
            f"{bundle}: a bundle for {runtime}, from which imgrec does not answer itself",
            "name the run or a bundle for litert or onnx; docs/exports.md shows how to load this one",
        )
    try:
        model = bundle / name if bundle.is_dir() else read_file(bundle, name, manifest.files[name].bytes)
        shape = (*manifest.pixels.size, manifest.pixels.channels)
        return kinds[runtime](model, threads, shape, len(manifest.class_names))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{bundle / name}: not a model that {runtime} takes: {error}", COPY_AGAIN) from error


class Engines:
    """Engines of one bundle, opened when they are needed and at most so many; each serves one thread at a time."""

    def __init__(self, opened: Callable[[], Engine], most: int) -> None:
        self._opened = opened
        self._idle: list[Engine] = []
        self._free = threading.Semaphore(most)

    @contextmanager
    def one(self) -> Iterator[Engine]:
        """An engine for the calling thread, which waits where all are in use."""
        with self._free:
            try:
                engine = self._idle.pop()
            except IndexError:
                engine = self._opened()
            try:
                yield engine
            finally:
                self._idle.append(engine)
