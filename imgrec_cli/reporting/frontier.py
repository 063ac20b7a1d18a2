"""The picture of a search for a smaller model: accuracy against size."""

from collections.abc import Sequence
from pathlib import Path

from imgrec_cli.atomic import replacing
from imgrec_cli.progress import readable_size
from imgrec_cli.reporting.plots import COLORS


def draw_frontier(
    points: Sequence[tuple[str, int, float, bool]],
    chosen: str | None,
    max_bytes: int,
    least_accuracy: float,
    file: Path,
) -> None:
    """Write a PNG of all candidates, as (name, bytes, accuracy 0 to 1, whether on the frontier), with the budget."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(0, max_bytes, color=COLORS[2], alpha=0.08)
    axes.axvline(max_bytes, color=COLORS[2], linewidth=1)
    axes.axhline(100 * least_accuracy, color=COLORS[1], linewidth=1)
    line = sorted((size, 100 * accuracy) for _, size, accuracy, best in points if best)
    axes.plot([x for x, _ in line], [y for _, y in line], color=COLORS[0], linewidth=1)
    for number, (name, size, accuracy, best) in enumerate(points):
        axes.plot(size, 100 * accuracy, "o" if best else "x", color=COLORS[0], markersize=9 if name == chosen else 5)
        place = (6, 6 if number % 2 else -12)  # neighbours above and below
        weight = "bold" if name == chosen else "normal"
        axes.annotate(name, (size, 100 * accuracy), place, textcoords="offset points", fontsize=7.5, weight=weight)
    sizes = [size for _, size, _, _ in points]
    axes.set_xscale("log")
    axes.set_xlim(min([*sizes, max_bytes]) / 1.6, max([*sizes, max_bytes]) * 3)
    axes.set_xlabel(f"size of the model in bytes; budget {readable_size(max_bytes)}")
    axes.set_ylabel(f"validation accuracy in %; budget {100 * least_accuracy:.1f}")
    axes.margins(y=0.2)
    with replacing(file) as stream:
        figure.savefig(stream, dpi=150, format="png")
