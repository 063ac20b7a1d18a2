"""A commented config to start from, its choices made by a look at the user's images and at the machine.

The rules are those that a practitioner would give for any data set; none is tuned to one.
"""

import os
import re
from pathlib import Path

from imgrec_cli.config import Data, path_from, written
from imgrec_cli.config.values import regex_with_one_capture
from imgrec_cli.dataset.first_look import GROUP, FirstLook, look_at
from imgrec_cli.dataset.sizing import BATCH_SIZES, EFFICIENCY, SMALL, STEPS, Sizes, layers, sizes_for
from imgrec_cli.errors import InputError
from imgrec_cli.machine import available_cores, available_memory_bytes, matrix_gflops, nvidia_cards
from imgrec_cli.progress import readable_size

FEW_TO_VALIDATE = 500  # images, below which accuracy moves in steps too coarse to choose an epoch by
PHOTO = 64  # pixels, from which on features learnt on photographs are worth their cost
FEATURES_GFLOPS = 2 * 0.3  # of MobileNetV2 at 224 pixels, forward


def starter_config(
    data_folder: Path,
    relative_to: Path = Path(),
    label_from: str | None = None,
    group: str | None = None,
    minutes: float = 10.0,
    weights: Path | None = None,
) -> str:
    """Text of a config for the images below `data_folder`, to be saved in the folder `relative_to`.

    `label_from` and `group` are the expressions of `data` in it, `minutes` what training may take on this machine by an
    estimate, `weights` a file of keras.applications without its top; one in Keras's own folder is found by itself. Of
    a sample of the training images the headers are read, of the others only the names. Raises DataError for folders
    that cannot be trained on.
    """
    rules = {"label_from": label_from, "group": group}
    given = {key: pattern for key, pattern in rules.items() if pattern is not None}
    for key, pattern in given.items():
        try:
            regex_with_one_capture(pattern)
        except ValueError as error:
            raise InputError(f"--{key.replace('_', '-')}: {error}", "such as '^([a-z]+)_'") from error
    look = look_at(Data.model_validate({"folder": str(data_folder), **given}), data_folder)
    found = _backbone(weights) if weights else _in_keras_folder()
    transfer = found is not None and (weights is not None or (not look.gray and look.side >= PHOTO))
    head = _head(look, data_folder, relative_to, given)
    if transfer and found is not None:
        return head + _transfer(look, *found, relative_to)
    return head + _from_scratch(look, minutes)


def _head(look: FirstLook, data_folder: Path, relative_to: Path, given: dict[str, str]) -> str:
    few = look.per_class[look.fewest]
    fewest, most = _in_one_line(look.fewest), _in_one_line(look.most)
    aside = "  (too few to set some aside: that takes 3)" if few < 3 else ""
    lines = [
        f"# {look.images} images in {len(look.per_class)} classes; the smallest class is {fewest} with {few}{aside}",
        "# Train with:  imgrec train THIS_FILE          All keys:  imgrec config schema",
    ]
    ratio = look.per_class[look.most] / few
    if ratio >= 3:
        lines.append(
            f"# {most} has {ratio:.0f} times as many images as {fewest}: look at the recall of each class, "
            "not at accuracy alone"
        )
    lines += [
        "version: 1",
        "seed: 0                         # the same seed gives the same split and the same start",
        "",
        "data:",
        f"  folder: {written(path_from(relative_to, data_folder))}",
        *(f"  {key}: {written(pattern)}" for key, pattern in given.items()),
        *_group(look),
        f"  split: {{validation: 15%, test: 15%}}   # {_split(look)}",
        "",
        "",
    ]
    return "\n".join(lines)


def _in_one_line(name: str) -> str:
    """A name as it can stand in a comment: of a folder it may hold line ends and what YAML allows nowhere."""
    return "".join(letter if letter.isprintable() else " " for letter in name)


def _split(look: FirstLook) -> str:
    cut = [split for split in ("validation", "test") if split not in look.given]
    if not cut:
        return "not used: the folder has both"
    if len(cut) == 2:
        return "set aside from each class"
    return f"{cut[0]} is set aside from each class; the folder has the other"


def _group(look: FirstLook) -> list[str]:
    """The groups that names speak of: used where every class has enough of them to be divided."""
    if not look.groups:
        return []
    example = _in_one_line(look.example)
    told = [
        f"  # names such as {example}_… share what stands before their number: {look.groups} groups. Images of one",
        "  # group (a patient, a video) stay on one side of the split, or the test would be of what was trained on.",
    ]
    if look.in_every_class < 6:
        told.append(
            "  # Not used, because a class has fewer than six of them. If they belong together, take the # away:"
        )
        return [*told, f"  # group: {written(GROUP)}"]
    return [*told, "  # If they have nothing in common, take this line away:", f"  group: {written(GROUP)}"]


def _image(look: FirstLook, side: int) -> str:
    low, high = min(look.sides), max(look.sides)
    uneven = sum(ratio > 1.6 for ratio in look.ratios) > len(look.ratios) / 4
    fit = (
        "  fit: crop                     # many are long and narrow: stretched, things would lose their shape"
        if uneven
        else "  fit: stretch                  # nothing is cut off; crop would lose the edges, pad add black"
    )
    deep = (
        "\n  range: auto                   # some have more than 8 bits: black and white follow from the training ones"
    )
    color = "gray                   # all sampled images are gray" if look.gray else "rgb"
    return f"""\
image:
  # the shorter side of a sample of the images: {low} to {high} pixels, {look.side} in the middle
  size: [{side}, {side}]
  color: {color}
{fit}{deep if look.deep else ""}
"""


def _augment(look: FirstLook) -> str:
    lines = [
        "augment:                        # random changes of training images: those that leave the class what it is"
    ]
    if look.by_number:
        lines.append("  # no mirror image: classes that are digits or letters would become others, or none")
    elif look.gray:
        lines.append(
            "  # no mirror image: gray images are often characters or scans, where left and right differ. Else add:"
        )
        lines.append("  # - {type: flip, axis: horizontal}")
    else:
        lines.append(
            "  - {type: flip, axis: horizontal}           # photographs are as likely either way; not for text"
        )
    lines += [
        "  - {type: rotate, degrees: 10}",
        "  - {type: shift, height: 0.1, width: 0.1}",
        "  - {type: zoom, range: [0.85, 1.15]}",
    ]
    if not look.gray and look.side > SMALL:
        lines.append("  - {type: brightness, range: [0.8, 1.2]}     # light differs from photograph to photograph")
    return "\n".join(lines) + "\n"


def _from_scratch(look: FirstLook, minutes: float) -> str:
    sizes = sizes_for(look, minutes)
    cards = nvidia_cards()
    memory = available_memory_bytes()
    machine = f"{cards[0]}" if cards else f"{available_cores()} cores"
    machine += f", {readable_size(memory)} of memory" if memory and not cards else ""
    rows, blocks = layers(sizes.side, sizes.width)
    ema = (
        "  ema: 0.99                     # the average of the last hundred steps is validated and shipped: steadier\n"
        if sizes.epochs * look.images / sizes.batch_size >= 1000
        else ""
    )
    return f"""\
{_image(look, sizes.side)}
{_augment(look)}
{_why_from_scratch(look)}
model:
  type: layers
  # {blocks} blocks of two convolutions; the map is halved between them until it is small, and the filters are doubled.
  # momentum 0.9: the statistics that predictions use follow within tens of steps; few images make few steps
  layers:
{rows}
    - {{type: global_pool}}       # one number per channel: few parameters, so less over-fitting than flatten
    - {{type: dropout, rate: 0.3}}
    # a softmax layer with one output per class is added here

optimizer:
  type: adamw
  weight_decay: 0.05            # weights shrink a little at every step, against over-fitting
  # rising at first, while weights and averages are still wild, then falling to 0, which settles them
  learning_rate: {{type: cosine, peak: 2e-3, warmup: 5%}}

train:
  batch_size: {sizes.batch_size}                 # {_why_batch(sizes.batch_size)}
  # about {_minutes(sizes.minutes)} on this machine ({machine}) by an estimate; imgrec bench THIS_FILE measures.
  # The fewer the images, the more epochs; size, filters and epochs are what {minutes:g} minutes allow (--minutes)
  epochs: {sizes.epochs}
{ema}{_chosen_by(look, sizes)}"""


def _chosen_by(look: FirstLook, sizes: Sizes) -> str:
    if "validation" in look.given or 0.15 * look.images >= FEW_TO_VALIDATE:
        return ""
    return (
        "  # with few validation images their loss tells better than their accuracy which epoch is the best\n"
        f"  early_stopping: {{metric: val/loss, patience: {max(5, sizes.epochs // 2)}}}\n"
    )


def _why_batch(size: int) -> str:
    return (
        "images a step" if size == BATCH_SIZES[0] else f"images a step: so that an epoch of few has some {STEPS} steps"
    )


def _why_from_scratch(look: FirstLook) -> str:
    if look.gray or look.side < PHOTO:
        kind = "gray" if look.gray else "small"
        return f"""\
# From scratch: features learnt on photographs say little of {kind} images such as these. What it costs: more images and
# epochs than a network that was trained before; a few hundred images a class are a good start."""
    return """\
# From scratch: no weights of a network trained on photographs were at hand. What that costs: with them a few dozen
# images a class are enough for photographs and training takes seconds, without them it takes hundreds and minutes.
# imgrec config init --weights FILE uses a file of keras.applications whose name ends in no_top.h5."""


def _transfer(look: FirstLook, file: Path, name: str, width: float, relative_to: Path) -> str:
    side = 224 if look.side >= 200 else 160
    seconds = look.images * FEATURES_GFLOPS * (side / 224) ** 2 * max(width, 0.35) / (matrix_gflops() * EFFICIENCY)
    return f"""\
{_image(look, side)}
# The features of a network that was trained on a million photographs, kept as they are: they are computed once, and
# only a layer on top of them is trained. No augmentation, which would have them computed anew in every epoch.
augment: []

model:
  type: backbone
  name: {name}
  width: {width:g}
  weights: {written(path_from(relative_to, file))}
  freeze: true
  dropout: 0.2

optimizer: {{type: adam, learning_rate: 1e-3}}

train:
  batch_size: 32
  epochs: 60                    # at most, each takes a moment; the features take about {_minutes(seconds / 60)} once
  early_stopping: {{metric: val/loss, patience: 8}}
"""


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return f"{max(5, round(minutes * 12) * 5)} seconds"
    return f"{minutes:.0f} minute{'s' if round(minutes) > 1 else ''}"


_FILES = (
    (re.compile(r"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_([\d.]+)_\d+_no_top\.h5"), "mobilenet_v2"),
    (re.compile(r"resnet50_weights_tf_dim_ordering_tf_kernels_notop\.h5"), "resnet50"),
)


def _backbone(file: Path) -> tuple[Path, str, float]:
    """The network that a weights file of keras.applications belongs to, by its name. Raises InputError."""
    for pattern, name in _FILES:
        if found := pattern.fullmatch(file.name):
            if not file.is_file():
                raise InputError(f"--weights {file}: no such file")
            return file.absolute(), name, float(found[1]) if found.groups() else 1.0
    raise InputError(
        f"--weights {file}: not named as keras.applications names a network without its top",
        "such as mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5; another one is written into the "
        "config by hand, as model.name and model.weights",
    )


def _in_keras_folder() -> tuple[Path, str, float] | None:
    """The widest such file among those that Keras has downloaded before; None where there is none."""
    home = os.environ.get("KERAS_HOME")
    folder = (Path(home) if home else Path.home() / ".keras") / "models"
    files = sorted(folder.glob("*.h5")) if folder.is_dir() else []
    found = [_backbone(file) for file in files if any(pattern.fullmatch(file.name) for pattern, _ in _FILES)]
    light = [one for one in found if one[1] == "mobilenet_v2" and one[2] <= 1.0]  # what a CPU can afford
    return max(light or found, key=lambda one: one[2], default=None)
