"""imgrec compress"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.options import FormatOption, QuietOption
from imgrec_cli.errors import GateError, InputError

if TYPE_CHECKING:
    from imgrec_cli.training.compress import Search

UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


def compress(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A finished run; the newest by default.", show_default=False)
    ] = None,
    max_size: Annotated[str, typer.Option(metavar="SIZE", help="Size of the model at most, such as 1MB.")] = "1MB",
    max_drop: Annotated[
        float, typer.Option(min=0, max=100, metavar="POINTS", help="Validation accuracy that may be lost.")
    ] = 0.5,
    quiet: QuietOption = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """Find the smallest model that keeps the accuracy: lower precision, a split dense layer, smaller networks.

    Example: imgrec compress runs/2026-01-31-1200-flowers --max-size 1MB --max-drop 0.5
    """
    from imgrec_cli import api

    most = _bytes(max_size)
    with output.ProgressPrinter(output.Format.human, quiet or format_ is output.Format.json) as progress:
        search, scores = api.compress(run, most, max_drop / 100, on_event=progress)
    if format_ is output.Format.json:
        from dataclasses import asdict

        output.result("compress", {**asdict(search), "place": str(search.place), "scores": scores})
    else:
        _print(search)
        for name, score in scores.items():
            output.line(f"test accuracy {output.percent(score)} {name}")
    if search.chosen is None:
        raise GateError(*_how_near(search))


def _bytes(text: str) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in UNITS or not float(found[1]):
        raise InputError(f"--max-size {text}: not a size", "a number and a unit, such as 300kB, 1MB or 2.5MB")
    return int(float(found[1]) * UNITS[found[2]])


def _print(search: "Search") -> None:
    frontier = search.frontier()
    output.table(
        ["model", "size", "one image", "validation accuracy", "change", "frontier", "budget"],
        (
            [
                one.name,
                output.size(one.bytes),
                f"{one.milliseconds:.2f} ms",
                output.percent(one.accuracy),
                f"{-100 * one.drop:+.1f}",
                "yes" if one in frontier else "",
                ("chosen" if one == search.chosen else "met") if one.fits else "",
            ]
            for one in search.candidates
        ),
    )
    output.line(f"picture {search.place.with_name('frontier.png')}")
    if search.chosen is not None:
        output.line(f"bundle {search.place}: {search.chosen.name}, {output.size(search.chosen.bytes)}")


def _how_near(search: "Search") -> tuple[str, str]:
    budget = f"{output.size(search.max_bytes)} at {100 * search.max_drop:g} points"
    small = [one for one in search.candidates if one.bytes <= search.max_bytes]
    good = [one for one in search.candidates if one.drop <= search.max_drop]
    near = []
    if small:
        best = min(small, key=lambda one: one.drop)
        near.append(f"within the size, {best.name} loses {100 * best.drop:.1f} points")
    if good:
        least = min(good, key=lambda one: one.bytes)
        near.append(f"within the loss, {least.name} takes {output.size(least.bytes)}")
    return f"none of {len(search.candidates)} models is within {budget}: {'; '.join(near)}", "allow more of either"
