"""How large a picture and a network from scratch, and how many epochs, fit into the minutes that a user has."""

import math
from dataclasses import dataclass
from pathlib import Path

from imgrec_cli.config import layer_table, parse_config
from imgrec_cli.dataset.first_look import FirstLook
from imgrec_cli.machine import matrix_gflops, nvidia_cards

SIDES = (160, 128, 96, 64)  # they halve cleanly; a larger picture costs more than it tells a small network
WIDTHS = (32, 24, 16)  # filters of the first block, doubled in the next ones
IMAGES_SEEN = 80_000  # in all epochs together: about 2,500 steps of 32
BATCH_SIZES = (32, 16)  # the largest that leaves an epoch STEPS steps, else 8: few images need many small steps
STEPS = 30
STEP_SECONDS = 0.005  # that a step takes beside its arithmetic
EPOCHS = (15, 80)  # at least and at most, whatever the number of images
SMALL = 40  # pixels, up to which pictures are taken as they are
EFFICIENCY = 0.35  # of a matrix product's speed, that the training of such a network reaches on a CPU
GPU_GFLOPS = 5000.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """The side of the image in pixels, the filters of the first block, epochs, images a step, and the minutes that all
    of it will take."""

    side: int
    width: int
    epochs: int
    batch_size: int
    minutes: float


def sizes_for(look: FirstLook, minutes: float) -> Sizes:
    """The largest picture and network whose training fits into the minutes; where none does, fewer epochs of the
    smallest."""
    kept = 1 - sum(0.15 for split in ("validation", "test") if split not in look.given)
    training = max(1.0, look.images * kept)
    epochs = round(min(max(IMAGES_SEEN / training, EPOCHS[0]), EPOCHS[1]))
    fitting = [side for side in SIDES if side <= look.side]
    sides = fitting if look.side > SMALL and fitting else [max(look.side, 8)]
    speed = GPU_GFLOPS if nvidia_cards() else matrix_gflops() * EFFICIENCY

    batch_size = next((size for size in BATCH_SIZES if training >= STEPS * size), 8)

    def taken(side: int, width: int, epochs: int) -> float:
        return training * epochs * (_gflop(look, side, width) / speed + STEP_SECONDS / batch_size) / 60

    # a smaller picture before a narrower network
    for side, width in [*((side, WIDTHS[0]) for side in sides), *((sides[-1], width) for width in WIDTHS[1:])]:
        if (time := taken(side, width, epochs)) <= minutes:
            return Sizes(side, width, epochs, batch_size, time)
    side, width = sides[-1], WIDTHS[-1]
    epochs = max(5, min(epochs, int(minutes / taken(side, width, 1))))
    return Sizes(side, width, epochs, batch_size, taken(side, width, epochs))


def _gflop(look: FirstLook, side: int, width: int) -> float:
    """Billions of operations of training on one image: forward once, backward twice, 2 per multiply-add."""
    rows, _ = layers(side, width)
    color = "gray" if look.gray else "rgb"
    text = (
        f"data: {{folder: x}}\nimage: {{size: [{side}, {side}], color: {color}}}\nmodel:\n  type: layers\n  layers:\n"
    )
    config = parse_config(f"{text}{rows}\n    - {{type: global_pool}}\n", "starter", Path())
    return 6 * sum(row.multiply_adds for row in layer_table(config, len(look.per_class))) / 1e9


def layers(side: int, width: int) -> tuple[str, int]:
    """The blocks as lines of YAML, and their number."""
    lines = []

    def conv(filters: int, kernel: int = 3, stride: int = 1) -> None:
        step = f", stride: {stride}" if stride > 1 else ""
        lines.append(f"    - {{type: conv, filters: {filters}, kernel: {kernel}{step}, padding: same}}")
        lines.append("    - {type: batch_norm, momentum: 0.9, activation: relu}")

    map_side = side
    if side > SMALL:  # the first step looks at every other pixel: full detail would cost more than all the rest
        conv(width, kernel=5, stride=2)
        lines.append("    - {type: pool, kind: max, size: 2}")
        map_side = math.ceil(side / 2) // 2
    blocks = 1
    filters = width if side <= SMALL else 2 * width
    while True:
        conv(filters)
        conv(filters)
        if map_side < 10:
            return "\n".join(lines), blocks
        lines.append("    - {type: pool, kind: max, size: 2}")
        map_side, blocks, filters = map_side // 2, blocks + 1, min(2 * filters, 8 * width)
