"""imgrec compare"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.options import FormatOption
from imgrec_cli.errors import GateError, InputError

if TYPE_CHECKING:
    from imgrec_cli.comparison import Against, Comparison, Difference
    from imgrec_cli.metrics.intervals import Interval

_COSTS: Mapping[str, tuple[str, str]] = {
    "seconds": ("training", "{:,.1f} s"),
    "epochs": ("epochs", "{:,.0f}"),
    "parameters": ("parameters", "{:,.0f}"),
    "bytes": ("model", ""),
    "milliseconds": ("one image", "{:.2f} ms"),
}
LONGEST_VALUE = 60


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="BASE NEW…", help="Runs, or evaluations in them, the one to beat first."),
    ],
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Evaluation to compare: test, validation, or data-… of evaluate --data.")
    ] = "test",
    figure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE", help="Test this too, alone and not as one of all classes, such as recall.cat; repeatable."
        ),
    ] = None,
    fail_if_worse: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE[=DROP]",
            help="Exit code 8 where a new run is really worse in a figure, such as accuracy or recall.cat; with a "
            "drop, where it is lower by more than that, such as accuracy=0.01; repeatable.",
        ),
    ] = None,
    format_: FormatOption = output.Format.human,
) -> None:
    """Compare runs on the same images, and say whether the difference is more than chance.

    Example: imgrec compare runs/BASE runs/NEW --fail-if-worse accuracy
    """
    if len(runs) < 2:
        raise InputError("one run is named", "name the run to beat and one or more new ones")
    from imgrec_cli import api

    gates = [_gate(text) for text in fail_if_worse or ()]
    comparison, configs = api.compare(runs, split=split, figures=[*(figure or ()), *(name for name, _ in gates)])
    failed = [
        f"{one.name}: {_worse(found)}"
        for one in comparison.against
        for found in one.figures
        for name, drop in gates
        if found.figure == name and _fails(found, drop)
    ]
    if format_ is output.Format.json:
        from dataclasses import asdict

        result = asdict(comparison)
        for one, entry, config in zip(comparison.against, result["against"], configs, strict=True):
            entry["config"] = [{"key": key, "base": before, "new": now} for key, before, now in config]
            for kind in ("figures", "recalls"):
                for found, row in zip(getattr(one, kind), entry[kind], strict=True):
                    row["verdict"] = found.verdict
        output.result("compare", {**result, "failed": failed})
    else:
        _print(comparison, configs)
    if failed:
        raise GateError("; ".join(failed))


def _gate(text: str) -> tuple[str, float | None]:
    """A figure and the drop that is allowed; None for one that may not be more than chance."""
    name, equals, value = text.rpartition("=")
    if not equals:
        return text, None
    try:
        return name, float(value)
    except ValueError:
        raise InputError(f"--fail-if-worse {text}: expected FIGURE or FIGURE=DROP, such as accuracy=0.01") from None


def _fails(found: "Difference", drop: float | None) -> bool:
    if drop is None:
        return found.is_real and found.difference < 0
    return -found.difference > drop + 1e-9  # 0.9 - 0.88 is a little more than 0.02


def _worse(found: "Difference") -> str:
    return f"{found.figure} fell from {found.base:.4f} to {found.new:.4f}, {found.verdict} ({_p(found.p, 'p ')})"


def _print(comparison: "Comparison", configs: list[list[tuple[str, str, str]]]) -> None:
    for note in comparison.notes:
        output.note(f"note: {note}")
    split = comparison.split
    output.line(f"{split}: {comparison.images:,} images{f', {comparison.caveat}' if comparison.caveat else ''}")
    if max(comparison.trainings) > 1:
        counts = ", ".join(map(str, comparison.trainings))
        output.line(f"means over {counts} trainings: the tests speak of other seeds, on these images")
    output.table(
        [split, *comparison.names],
        (
            [figure, *(_with_interval(figure, *one[figure]) for one in comparison.figures)]
            for figure in comparison.figures[0]
        ),
    )
    output.line()
    output.table(
        ["cost", *comparison.names],
        (
            [title, *("-" if cost[key] is None else _cost(key, cost[key] or 0) for cost in comparison.costs)]
            for key, (title, _) in _COSTS.items()
            if any(cost[key] is not None for cost in comparison.costs)
        ),
    )
    for one, config in zip(comparison.against, configs, strict=True):
        output.line()
        _print_against(comparison.names[0], one, split)
        output.line()
        if config:
            rows = [[key, _short(before), _short(now)] for key, before, now in config]
            output.table(["config", comparison.names[0], one.name], rows)
        else:
            output.line("config: no difference")


def _print_against(base: str, one: "Against", split: str) -> None:
    accuracy = one.figures[0]
    size = "" if accuracy.is_real else " at this size"
    output.line(
        f"{one.name} against {base}: {accuracy.verdict} in accuracy{size} "
        f"({_points(accuracy.difference)} points, {_p(accuracy.p, 'p ')})"
        + (
            ""
            if one.only_new is None
            else f"; right where the other is wrong: {one.only_new:,} and {one.only_base:,} images"
        )
    )
    output.table(
        [f"{split}, difference", "change", "95 % interval", "p", ""],
        ([found.figure, *_difference(found)] for found in one.figures),
    )
    # every class, where there are few; else those that changed
    few = len(one.recalls) <= 20
    recalls = [found for found in one.recalls if few or found.is_real]
    if recalls:
        output.line()
        output.table(
            [f"{split}, recall", base, one.name, "change", "95 % interval", "p", ""],
            (
                [
                    found.figure.removeprefix("recall."),
                    output.percent(found.base),
                    output.percent(found.new),
                    *_difference(found),
                ]
                for found in recalls
            ),
        )
    if not few:
        output.line(f"recall: {len(recalls)} of {len(one.recalls)} classes really differ")


def _difference(found: "Difference") -> list[str]:
    low, high = found.interval
    return [_points(found.difference), f"{_points(low)} to {_points(high)}", _p(found.p), found.verdict]


def _with_interval(figure: str, value: float, interval: "Interval") -> str:
    low, high = interval
    if figure in ("mcc", "kappa"):
        return f"{value:.3f} ({low:.3f} to {high:.3f})"
    return f"{output.percent(value)} ({100 * low:.1f} to {100 * high:.1f})"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _p(value: float, name: str = "") -> str:
    equal = f"{name}= " if name else ""
    return f"{equal}{value:.3f}" if value >= 0.001 else f"{name}< 0.001"


def _cost(key: str, value: float) -> str:
    return output.size(value) if key == "bytes" else _COSTS[key][1].format(value)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"
