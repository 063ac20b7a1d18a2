"""A commented config to start from, its choices made by a look at the user's images."""

import math
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from imgrec_cli.config import Data, path_from, written
from imgrec_cli.config.sections import regex_with_one_capture
from imgrec_cli.dataset.scan import scan
from imgrec_cli.errors import BadImageError, DataError, InputError
from imgrec_cli.imaging import header

SAMPLED = 60
SIDES = (32, 64, 96, 128, 160)  # they halve cleanly; beyond 160 an epoch on a CPU takes minutes


@dataclass(frozen=True, slots=True)
class _Look:
    """Images per class, and of a sample the shorter sides in pixels and whether all are gray."""

    per_class: dict[str, int]
    sides: list[int]
    gray: bool


def starter_config(
    data_folder: Path, relative_to: Path = Path(), label_from: str | None = None, group: str | None = None
) -> str:
    """Text of a config for the images below `data_folder`, to be saved in the folder `relative_to`.

    `label_from` and `group` are the expressions of `data` in it. Of a sample of the training images the headers are
    read, of the others only the names. Raises DataError for folders that cannot be trained on.
    """
    rules = {"label_from": label_from, "group": group}
    given = {key: pattern for key, pattern in rules.items() if pattern is not None}
    for key, pattern in given.items():
        try:
            regex_with_one_capture(pattern)
        except ValueError as error:
            raise InputError(f"--{key.replace('_', '-')}: {error}", "such as '^([a-z]+)_'") from error
    look = _look_at(Data.model_validate({"folder": str(data_folder), **given}), data_folder)
    images, fewest = sum(look.per_class.values()), min(look.per_class, key=lambda name: look.per_class[name])
    shorter = round(median(look.sides))
    side = max((side for side in SIDES if side <= shorter), default=shorter) if shorter > 40 else max(shorter, 8)
    pools = max(0, min(4, int(math.log2(side / 6))))
    epochs = 60 if images < 2_000 else 30 if images < 10_000 else 15
    few = "  (too few to set some aside: that takes 3)" if look.per_class[fewest] < 3 else ""
    return f"""\
# {images} images in {len(look.per_class)} classes; the smallest class is {fewest} with {look.per_class[fewest]}{few}
# Train with:  imgrec train THIS_FILE          All keys:  imgrec config schema
version: 1
seed: 0                         # the same seed gives the same split and the same start

data:
  folder: {written(path_from(relative_to, data_folder))}
{"".join(f"  {key}: {written(pattern)}{chr(10)}" for key, pattern in given.items())}\
  split: {{validation: 15%, test: 15%}}   # set aside from each class where no folder is given for it

image:
  # the shorter side of a sample of the images: {min(look.sides)} to {max(look.sides)} pixels, {shorter} in the middle
  size: [{side}, {side}]
  color: {_color(look.gray)}
  fit: stretch                  # nothing is cut off; crop keeps the proportions and loses the edges, pad adds black

augment:                        # random changes of training images; keep those that leave the class what it is
{_augment(look.gray)}
model:
  type: layers
  # {pools + 1} blocks of convolution; pooling halves the map {pools} times, from {side} to {side >> pools} pixels
  layers:
{_layers(pools)}
    - {{type: global_pool}}       # one number per channel: few parameters, so less over-fitting than flatten
    - {{type: dropout, rate: 0.3}}
    # a softmax layer with one output per class is added here

optimizer: {{type: adam, learning_rate: 1e-3}}

train:
  batch_size: 32
  epochs: {epochs}                    # at most; the fewer the images, the more passes over them
  early_stopping: {{metric: val/loss, patience: {max(5, epochs // 6)}}}   # the best epoch is kept in any case
"""


def _color(gray: bool) -> str:
    return "gray                   # all sampled images are gray" if gray else "rgb"


def _augment(gray: bool) -> str:
    lines = ["  - {type: rotate, degrees: 10}", "  - {type: shift, height: 0.1, width: 0.1}"]
    lines.append("  - {type: zoom, range: [0.9, 1.1]}")
    # letters, digits and scans change their meaning in a mirror; photographs seldom do
    flip = "- {type: flip, axis: horizontal}"
    lines.append(f"  # {flip}   # wrong for letters and digits" if gray else f"  {flip}   # not for text")
    return "\n".join(lines) + "\n"


def _layers(pools: int) -> str:
    lines = []
    for number in range(pools + 1):
        lines.append(f"    - {{type: conv, filters: {min(32 * 2**number, 128)}, kernel: 3, padding: same}}")
        lines.append("    - {type: batch_norm, activation: relu}")
        if number < pools:
            lines.append("    - {type: pool, kind: max, size: 2}")
    return "\n".join(lines)


def _look_at(data: Data, data_folder: Path) -> _Look:
    listing = scan(data, "imgrec config init")
    training = [example for example in listing.examples if example.split == "train"]
    sides, all_gray, reason = [], True, ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images so large that Pillow suspects an attack; only headers are read
        for example in training[:: math.ceil(len(training) / SAMPLED)]:
            try:
                size, gray = header(Path(example.file))
            except BadImageError as error:
                reason = reason or f"{example.file}: {error.message}"
                continue
            sides.append(min(size))
            all_gray = all_gray and gray
    if not sides:
        raise DataError(
            f"{data_folder}: none of the images looked at can be read, such as {reason}", "replace the damaged files"
        )
    per_class = Counter(listing.class_names[example.label] for example in training)
    return _Look(per_class, sides, all_gray)
