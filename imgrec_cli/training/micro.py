"""A model for microcontrollers: C sources beside the model, and TensorFlow Lite Micro's own interpreter to judge it."""

import importlib.util
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.bundle import Manifest
from imgrec_cli.engines import Engine, Pixels, Scores, open_engine, operators_of
from imgrec_cli.machine import native_messages_hidden

ARENA_MARGIN = 1.1  # the interpreter for a 32-bit target needs less; its kernels' scratch memory may differ
ARENA_GRAIN = 1024
VECTORS = "test_vectors.h"
JUDGING_SECONDS = 60.0  # its plain C loops take seconds for an image of a large network


class Micro:
    """The model in TensorFlow Lite Micro on this machine, by the interpreter of the package `tflite-micro`."""

    def __init__(self, content: bytes) -> None:
        from tflite_micro.python.tflite_micro import runtime

        with native_messages_hidden():
            self._interpreter: Any = runtime.Interpreter.from_bytes(content, arena_size=arena_for(content))
            details = self._interpreter.get_output_details(0)
        quantization = details["quantization_parameters"]
        self._scale, self._zero = quantization["scales"][0], quantization["zero_points"][0]

    def outputs(self, pixels: Pixels) -> tuple[Scores, Scores | None]:
        found = []
        for image in as_int8(pixels):
            self._interpreter.set_input(image[None], 0)
            self._interpreter.invoke()
            found.append((self._interpreter.get_output(0).astype(np.float32) - self._zero) * np.float32(self._scale))
        return np.concatenate(found), None

    def arena_bytes(self) -> int:
        """Memory that the interpreter took for the model's tensors and its own records, after a call."""
        with tempfile.TemporaryFile() as told:
            sys.stderr.flush()
            terminal = os.dup(2)
            try:
                os.dup2(told.fileno(), 2)  # the package prints it, and hands it out in no other way
                self._interpreter.print_allocations()
            finally:
                os.dup2(terminal, 2)
                os.close(terminal)
            told.seek(0)
            text = told.read().decode("utf-8", "replace")
        found = re.search(r"Arena allocation total (\d+) bytes", text)
        if found is None:
            raise RuntimeError(f"tflite-micro did not say how much memory it took: {text[:200]}")
        return int(found[1])


class Judge:
    """Answers by TensorFlow Lite Micro for `JUDGING_SECONDS`, and then by LiteRT's kernels of the same 8-bit model.

    `micro` is None where the package `tflite-micro` is missing: then LiteRT answers for all images. `engine` is the one
    that is nearest to the device.
    """

    def __init__(self, micro: Micro | None, integer: Engine) -> None:
        self.micro, self._integer = micro, integer
        self.engine: Engine = micro or integer
        self._seconds, self._answered = 0.0, 0

    def outputs(self, pixels: Pixels) -> tuple[Scores, Scores | None]:
        found = []
        for place in range(len(pixels)):
            if self.micro is None or self._seconds > JUDGING_SECONDS:
                found.append(self._integer.outputs(pixels[place:])[0])
                break
            began = time.perf_counter()
            found.append(self.micro.outputs(pixels[place : place + 1])[0])
            self._seconds += time.perf_counter() - began
            self._answered += 1
        return np.concatenate(found), None

    def told(self, images: int) -> str:
        """Who answered for that many images, in words."""
        if self.micro is None:
            return "by LiteRT's integer kernels (tflite-micro was not installed)"
        by_micro = "by tflite-micro's interpreter"
        if self._answered >= images:
            return by_micro
        return f"{by_micro}, which answered the first {self._answered}, and LiteRT's integer kernels, the others"


def as_int8(pixels: Pixels) -> NDArray[np.int8]:
    """Pixels uint8, 0 to 255 → what the model takes: int8, 128 less."""
    return (pixels ^ 128).view(np.int8)


def arena_for(content: bytes) -> int:
    """Memory that is surely enough to try a model: its maps may be far larger than its weights."""
    return 32_000_000 + 10 * len(content)


def has_interpreter() -> bool:
    """Whether the package `tflite-micro` is installed; it has wheels for Linux x86-64 alone."""
    return importlib.util.find_spec("tflite_micro") is not None


def open_judge(folder: Path, manifest: Manifest) -> Judge:
    """The model as a microcontroller computes it."""
    micro = Micro((folder / manifest.model).read_bytes()) if has_interpreter() else None
    return Judge(micro, open_engine(folder, manifest, 1))


def write_sources(folder: Path, manifest: Manifest, judge: Judge) -> None:
    """Write the C array of the model, an example, the pixel contract and test vectors beside the model."""
    content = (folder / manifest.model).read_bytes()
    model = content[: _zip_start(content)]  # the metadata at the end is of no use on the device
    operators = operators_of(folder / manifest.model)
    arena, how = None, "not measured: the package tflite-micro was not installed"
    pixels = test_pixels(manifest)
    scores, _ = judge.engine.outputs(pixels)
    if judge.micro is not None:
        arena = judge.micro.arena_bytes()
        how = f"{arena:,} bytes as measured by tflite-micro on a 64-bit machine, and a tenth more"
    size = None if arena is None else -(-int(arena * ARENA_MARGIN) // ARENA_GRAIN) * ARENA_GRAIN
    texts = {
        "model_data.h": _header(manifest, size, how),
        "model_data.cc": _source(model, manifest),
        "example.cc": _example(operators),
        VECTORS: _vectors(pixels, scores),
        "README.md": _contract(manifest, operators, len(model), size, how, judge.told(manifest.parity.images)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _zip_start(content: bytes) -> int:
    """Where the metadata begins that `formats.add_metadata` put at the end; the size where there is none."""
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return min(member.header_offset for member in archive.infolist())
    except zipfile.BadZipFile:
        return len(content)


def test_pixels(manifest: Manifest) -> Pixels:
    """Two images uint8 [2, H, W, C] by formulas that fit into C: a ramp, and a noise of a linear congruence."""
    shape = (*manifest.pixels.size, manifest.pixels.channels)
    count = int(np.prod(shape))
    place = np.arange(count, dtype=np.int64)
    ramp = place * 255 // max(count - 1, 1)
    noise = (place * 1103515245 + 12345) // 65536 % 256
    return np.stack([ramp.reshape(shape), noise.reshape(shape)]).astype(np.uint8)


def _header(manifest: Manifest, arena: int | None, how: str) -> str:
    height, width = manifest.pixels.size
    size = 0 if arena is None else arena
    return f"""\
// {_comment(manifest.name)}: a classifier for TensorFlow Lite Micro. README.md says what it takes and gives.
#ifndef MODEL_DATA_H_
#define MODEL_DATA_H_
#include <cstdint>

constexpr int kHeight = {height};
constexpr int kWidth = {width};
constexpr int kChannels = {manifest.pixels.channels};
constexpr int kClasses = {len(manifest.class_names)};
// {how}
constexpr int kArenaBytes = {size};
extern const char* const kClassNames[kClasses];
alignas(16) extern const unsigned char kModel[];
extern const int kModelBytes;

#endif  // MODEL_DATA_H_
"""


def _comment(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]|\\", "?", text)


def _c_string(text: str) -> str:
    """UTF-8 bytes as a C literal; other than letters, digits and blanks are octal, which no following digit extends."""
    plain = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 _-")
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


def _source(model: bytes, manifest: Manifest) -> str:
    lines = [",".join(f"0x{byte:02x}" for byte in model[i : i + 20]) for i in range(0, len(model), 20)]
    names = ",\n    ".join(_c_string(name) for name in manifest.class_names)
    return (
        '#include "model_data.h"\n\n'
        f"const char* const kClassNames[kClasses] = {{\n    {names}}};\n"
        f"const int kModelBytes = {len(model)};\n"
        "alignas(16) const unsigned char kModel[] = {\n" + ",\n".join(lines) + "};\n"
    )


def _example(operators: list[str]) -> str:
    adds = "\n".join(f"    resolver.Add{_camel(name)}();" for name in operators)
    return f"""\
// Answers the test vectors, and says whether they came out as they did where the model was made.
#include <cstdio>
#include <cstdlib>

#include "model_data.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
#include "{VECTORS}"

alignas(16) static uint8_t arena[kArenaBytes];

int main() {{
    static tflite::MicroMutableOpResolver<{len(operators)}> resolver;
{adds}
    tflite::MicroInterpreter interpreter(tflite::GetModel(kModel), resolver, arena, kArenaBytes);
    if (interpreter.AllocateTensors() != kTfLiteOk) return 1;  // kArenaBytes is too small, or an operator is missing
    int8_t* input = interpreter.input(0)->data.int8;
    const int8_t* output = interpreter.output(0)->data.int8;

    int worst = 0;
    for (int vector = 0; vector < kVectors; ++vector) {{
        for (int i = 0; i < kHeight * kWidth * kChannels; ++i)
            input[i] = static_cast<int8_t>(VectorPixel(vector, i) - 128);  // your camera's pixel, 0 to 255, instead
        if (interpreter.Invoke() != kTfLiteOk) return 2;
        int best = 0;
        for (int c = 0; c < kClasses; ++c) {{
            if (output[c] > output[best]) best = c;
            int gap = std::abs(output[c] - kVectorScores[vector][c]);
            if (gap > worst) worst = gap;
        }}
        std::printf("vector %d: %s %.3f\\n", vector, kClassNames[best], (output[best] + 128) / 256.0);
    }}
    std::printf("largest difference %d of 256\\n", worst);
    return worst > 3 ? 3 : 0;  // kernels for other processors round differently
}}
"""


def _camel(operator: str) -> str:
    """The name of an operator as the resolver's methods spell it."""
    return "".join(part.capitalize() for part in operator.split("_")).replace("2d", "2D")


def _vectors(pixels: Pixels, scores: Scores) -> str:
    rows = ",\n    ".join("{" + ", ".join(str(round(256 * float(v)) - 128) for v in row) + "}" for row in scores)
    return f"""\
// Two images by formula, and what the model answered for them where it was made: 256 × probability − 128.
#ifndef TEST_VECTORS_H_
#define TEST_VECTORS_H_
#include <cstdint>

#include "model_data.h"

constexpr int kVectors = {len(pixels)};
// pixel 0 to 255 at place i = (row * kWidth + column) * kChannels + channel
inline int VectorPixel(int vector, int64_t i) {{
    const int64_t last = int64_t{{kHeight}} * kWidth * kChannels - 1;
    return static_cast<int>(vector == 0 ? i * 255 / last : (i * 1103515245 + 12345) / 65536 % 256);
}}
const int16_t kVectorScores[kVectors][kClasses] = {{
    {rows}}};

#endif  // TEST_VECTORS_H_
"""


def _contract(manifest: Manifest, operators: list[str], size: int, arena: int | None, how: str, judged: str) -> str:
    spec = manifest.pixels
    height, width = spec.size
    colour = "red, green, blue" if spec.color == "rgb" else "gray: 0.299 red + 0.587 green + 0.114 blue"
    fit = {
        "stretch": "the whole picture is stretched to this size, whatever its proportions",
        "crop": "the largest middle part with these proportions is taken and resized",
        "pad": "the whole picture is resized to fit inside, and the rest is black",
    }[spec.fit]
    parity = manifest.parity
    agreement = 100 - 100 * parity.disagreements / parity.images
    accuracy = "" if parity.accuracy is None else f", accuracy {100 * parity.accuracy:.1f} %"
    reference = "" if parity.reference_accuracy is None else f" ({100 * parity.reference_accuracy:.1f} % in Keras)"
    return f"""\
# {manifest.name} for microcontrollers

| file | what |
| --- | --- |
| `model_data.h`, `model_data.cc` | the model of {size:,} bytes as a C array, the class names, sizes |
| `example.cc` | a whole program that answers the test vectors |
| `{VECTORS}` | two images by formula and the answers to them |
| `{manifest.model}` | the same model as a file |

**Pixels.** int8 [1, {height}, {width}, {spec.channels}]: rows from above, columns from the left, channels {colour}.
A value is the pixel, 0 to 255, minus 128. No other scaling: it is part of the model. To make {height} × {width} of a
camera's picture, turn it upright, then {fit}.
Reduce as training did, by Pillow's bilinear `resize`, which averages all pixels it covers; a mean over areas comes
close, leaving out pixels does not.

**Answer.** int8 [1, {len(manifest.class_names)}], 256 × probability − 128, in the order of `kClassNames`. The
probabilities are those before the temperature {manifest.decision.temperature:.3f}; the most probable class is the same
with it.

**Memory.** The model stays in flash. RAM for the arena: {"unknown" if arena is None else f"{arena:,} bytes"} ({how}).

**Operators.** {", ".join(operators)}.

**Judged** on {parity.images} validation images {judged}: {agreement:.1f} % of the labels as
in Keras{accuracy}{reference}.
"""
