"""Mutated configs and mutated images through the loaders: each is read, or refused with one of imgrec's own errors.

python tests/campaigns/fuzz.py [--configs 5000] [--images 5000] [--seed 0]

Case number n is made from (seed, n) alone, so that a failure can be made again: `--only configs 1234`. Reports uncaught
exceptions, cases that take more than five seconds, and the peak memory of all; a case that ends its process or hangs is
named too. The tests run the same functions with a smaller count.
"""

import argparse
import io
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from imgrec_cli.config import layer_table, parse_config, resolved_yaml
from imgrec_cli.errors import BadImageError, ConfigError
from imgrec_cli.imaging import PixelSpec, decode, survey

ROOT = Path(__file__).parents[2]
SECONDS = 5.0  # the most that a case may take
CHUNK = 50
SCALARS = [
    *("0", "-1", "1e-3", "1e309", ".inf", "-.nan", "99999999999999999999", "0x7fffffff", "0o17", "012", "1_000"),
    *(
        "true",
        "no",
        "null",
        "~",
        "''",
        '""',
        '"\\x00"',
        "auto",
        "off",
        "none",
        "15%",
        "101%",
        "-5%",
        "3 epochs",
        "0 steps",
    ),
    *(
        "10m",
        "[]",
        "{}",
        "[1, 2]",
        "[[1]]",
        "{type: conv}",
        "{type: [a]}",
        "{? a : b}",
        "*a",
        "&a b",
        "!!int 3",
        "!x y",
    ),
    *(
        "|",
        ">",
        "- ",
        "\t",
        "'",
        '"',
        "#",
        "%",
        "@",
        "`",
        "\ufeff",
        "\u2028",
        "\U0001f600",
        "a" * 5000,
        "[" * 50,
        "{a: " * 30,
    ),
]


@cache
def shipped_configs() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((ROOT / "configs").glob("*.yaml"))]


def mutated_config(chance: random.Random) -> tuple[str, list[str]]:
    """The text of a shipped config with one to six changes, and up to two overrides."""
    text = chance.choice(shipped_configs())
    for _ in range(chance.randint(1, 6)):
        lines = text.split("\n")
        place, other = chance.randrange(len(lines)), chance.randrange(len(lines))
        at = chance.randrange(len(text) + 1)
        match chance.randrange(9):
            case 0:  # one character
                text = (
                    text[:at] + chr(chance.choice([chance.randrange(32, 127), chance.randrange(0x110000)])) + text[at:]
                )
            case 1:
                text = text[:at] + text[at + chance.randint(1, 8) :]
            case 2:  # a line twice, away, or moved
                text = "\n".join([*lines[:place], lines[other], *lines[place:]])
            case 3:
                text = "\n".join(lines[:place] + lines[place + 1 :])
            case 4:  # another indentation
                lines[place] = " " * chance.randrange(9) + lines[place].lstrip()
                text = "\n".join(lines)
            case 5:  # another value behind a key
                key, colon, _ = lines[place].partition(":")
                lines[place] = f"{key}{colon} {chance.choice(SCALARS)}"
                text = "\n".join(lines)
            case 6:  # a number or a word changed where it stands
                words = list(_words(text))
                begin, end = chance.choice(words) if words else (0, 0)
                text = text[:begin] + chance.choice(SCALARS) + text[end:]
            case 7:  # cut off
                text = text[:at]
            case 8:  # parts of another config
                text = text[:at] + chance.choice(shipped_configs())[chance.randrange(500) :]
    keys = [
        "train.epochs",
        "model.layers.0.filters",
        "optimizer",
        "augment.9.degrees",
        "data.folder",
        "",
        "a..b",
        "seed.x",
    ]
    overrides = [f"{chance.choice(keys)}={chance.choice(SCALARS)}" for _ in range(chance.choice([0, 0, 1, 2]))]
    text = "".join(character for character in text if not 0xD800 <= ord(character) < 0xE000)  # no file holds these
    return text, overrides


def _words(text: str):
    import re

    return ((match.start(), match.end()) for match in re.finditer(r"[\w.%+-]+", text))


def config_case(seed: int, number: int) -> str:
    """Read one mutated config; what is read must have a layer table and come back from its own YAML."""
    text, overrides = mutated_config(random.Random(f"config {seed} {number}"))
    try:
        config = parse_config(text, "fuzz.yaml", ROOT / "configs", overrides)
    except ConfigError as error:
        message = error.message
    else:
        message = None
    if message is not None:
        assert message.strip(), "an error without a text"
        assert len(message) < 100_000, "an error of more than 100 kB"
        return "refused"
    layer_table(config, 10)
    assert parse_config(resolved_yaml(config, ROOT), "resolved.yaml", ROOT) == config
    return "read"


@cache
def good_images() -> list[bytes]:
    """Small files of every format that is read, in most of its kinds."""
    random_state = np.random.default_rng(0)
    smooth = np.linspace(0, 255, 40 * 30 * 3).reshape(30, 40, 3)
    pixels = (smooth + random_state.normal(0, 20, smooth.shape)).clip(0, 255).astype(np.uint8)
    rgb = Image.fromarray(pixels)
    gray = rgb.convert("L")
    alpha = rgb.copy()
    alpha.putalpha(gray)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        *((rgb, "JPEG", {"quality": 80}), (rgb, "JPEG", {"progressive": True, "exif": exif}), (gray, "JPEG", {})),
        *(
            (rgb.convert("CMYK"), "JPEG", {}),
            (rgb, "PNG", {}),
            (gray, "PNG", {}),
            (alpha, "PNG", {}),
            (deep, "PNG", {}),
        ),
        *((rgb.convert("P"), "PNG", {"transparency": 3}), (gray.convert("1"), "PNG", {}), (rgb, "PNG", {"exif": exif})),
        *((rgb, "WEBP", {"lossless": True}), (rgb, "WEBP", {"exif": exif}), (alpha, "WEBP", {})),
        *((rgb, "BMP", {}), (gray, "BMP", {}), (rgb.convert("P"), "BMP", {}), (gray.convert("1"), "BMP", {})),
        *((rgb.convert("P"), "GIF", {}), (gray, "GIF", {"save_all": True, "append_images": [gray]})),
        *(
            (rgb, "TIFF", {}),
            (gray, "TIFF", {"compression": "tiff_lzw"}),
            (deep, "TIFF", {"compression": "tiff_deflate"}),
        ),
        *((rgb, "TIFF", {"compression": "jpeg"}), (alpha, "TIFF", {"compression": "packbits"})),
        (gray.convert("1"), "TIFF", {"compression": "group4"}),
        (Image.fromarray(np.asarray(gray, np.float32)), "TIFF", {}),
    ]
    files = []
    for picture, kind, options in kinds:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        files.append(stream.getvalue())
    return files


def mutated_image(chance: random.Random) -> bytes:
    """A good file with one to five changes: bits, fields, cuts, repetitions, parts of another file."""
    content = bytearray(chance.choice(good_images()))
    for _ in range(chance.randint(1, 5)):
        size = len(content)
        if not size:
            break
        at = chance.choice([chance.randrange(size), chance.randrange(min(size, 64))])  # headers are worth it
        length = chance.randint(1, 64)
        match chance.randrange(8):
            case 0:
                content[at] ^= 1 << chance.randrange(8)
            case 1:
                content[at] = chance.randrange(256)
            case 2:  # a field of two or four bytes
                width = chance.choice([2, 4])
                value = chance.choice(
                    [0, 1, 2**15, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), chance.randrange(2**16)]
                )
                order = chance.choice(["big", "little"])
                content[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, order)
            case 3:
                del content[at:]
            case 4:
                del content[at : at + length]
            case 5:
                content[at:at] = content[at : at + length] * chance.randint(1, 50)
            case 6:
                content[at : at + length] = bytes(length)
            case 7:
                other = chance.choice(good_images())
                content[at:] = other[chance.randrange(len(other)) :]
    return bytes(content)


SPECS = (
    PixelSpec((24, 24), "rgb", "stretch"),
    PixelSpec((17, 31), "gray", "crop"),
    PixelSpec((31, 17), "rgb", "pad", (0, 4095)),
)


def image_case(seed: int, number: int) -> str:
    """Read one mutated image; what is read has the shape that was asked for."""
    chance = random.Random(f"image {seed} {number}")
    content, spec = mutated_image(chance), chance.choice(SPECS)
    try:
        pixels = decode(content, spec).pixels
        assert pixels.shape == (*spec.size, spec.channels)
        assert pixels.dtype == np.uint8
        survey(content)
    except BadImageError as error:
        message = error.message
    else:
        return "read"
    assert message.strip(), "an error without a text"
    assert "\n" not in message, "an error of several lines"
    return "refused"


CASES = {"configs": config_case, "images": image_case}


def run_chunk(kind: str, seed: int, numbers: range, report: int) -> None:
    """What a child process does: one line per case, written before the next begins."""
    import warnings

    warnings.simplefilter("ignore")
    with os.fdopen(report, "w", buffering=1) as stream:
        for number in numbers:
            began = time.perf_counter()
            try:
                outcome = CASES[kind](seed, number)
            except BaseException:
                outcome = "UNCAUGHT " + repr(traceback.format_exc())
            seconds = time.perf_counter() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            stream.write(f"{number}\t{seconds:.3f}\t{peak}\t{outcome}\n")


def campaign(kind: str, seed: int, count: int) -> int:
    """Run all cases of one kind in child processes; returns the number of failures."""
    good_images(), shipped_configs()  # made once, before the children
    counts: Counter[str] = Counter()
    slowest, peak, failures = 0.0, 0, []
    for start in range(0, count, CHUNK):
        numbers = range(start, min(start + CHUNK, count))
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            signal.alarm(int(SECONDS * CHUNK))
            run_chunk(kind, seed, numbers, writer)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as stream:
            lines = stream.read().splitlines()
        _, status = os.waitpid(child, 0)
        if len(lines) < len(numbers):
            failures.append(f"{kind} {numbers[len(lines)]}: ended its process, status {status}")
        for line in lines:
            number, seconds, memory, outcome = line.split("\t")
            counts[outcome.split()[0]] += 1
            slowest, peak = max(slowest, float(seconds)), max(peak, int(memory))
            if outcome.startswith("UNCAUGHT") or float(seconds) > SECONDS:
                failures.append(f"{kind} {number}: {seconds} s, {outcome}")
    for failure in failures:
        print(failure)
    print(
        f"| {kind} | {seed} | {count:,} | {counts['read']:,} | {counts['refused']:,} | {len(failures)} | "
        f"{slowest:.2f} s | {peak} MB |",
        flush=True,
    )
    return len(failures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", type=int, default=5000)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="run one case in this process")
    options = parser.parse_args()
    if options.only:
        print(CASES[options.only[0]](options.seed, int(options.only[1])))
        return 0
    print("| cases | seed | number | read | refused by a message | uncaught, hung or crashed | slowest | peak memory |")
    print("| --- " * 8 + "|")
    failed = campaign("configs", options.seed, options.configs) + campaign("images", options.seed, options.images)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
