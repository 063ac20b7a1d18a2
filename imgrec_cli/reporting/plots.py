"""Plots as SVG inside the page: text in the page's own color, lines that colour-blind people tell apart."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.metrics.curves import curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito 2008, without black and yellow, which vanish on one of the two backgrounds
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX*<>"
_TEXT = "#010203"  # stands for the color of the page's text
_SIZE = (4.6, 3.1)  # inches: readable where the page is as narrow as a phone
MOST_CURVES = 12


@contextmanager
def _axes(name: str, size: tuple[float, float] = _SIZE) -> Iterator[tuple["Axes", list[str]]]:
    """Axes to draw on; the list holds the SVG when the block has ended."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",  # letters stay letters
        "svg.hashsalt": name,  # the same page from the same run, and no two plots share an id
        "font.family": "sans-serif",
        "font.size": 9.5,
        "text.parse_math": False,  # a dollar sign in a class's name is no formula
        "axes.grid": True,
        "grid.alpha": 0.2,
        "axes.prop_cycle": cycler(color=COLORS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), _TEXT
        ),
    }
    result: list[str] = []
    with mpl.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        yield figure.subplots(), result
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # no font of the system named first, and no metadata: the page's font is taken
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same in every plot; what is referred to has its salt
    result.append(text.replace(_TEXT, "currentColor"))


def lines(
    name: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    *,
    shares: bool = False,
    log_x: bool = False,
    extra: Callable[["Axes"], None] | None = None,
) -> str:
    """Lines with points; `series` name → (x, y). With `shares` the y axis is in percent."""
    with _axes(name) as (axes, svg):
        for number, (label, (xs, ys)) in enumerate(series.items()):
            marker = MARKERS[number % len(MARKERS)] if len(xs) <= 40 else None
            values = [100 * value for value in ys] if shares else ys
            axes.plot(xs, values, marker=marker, label=label, linestyle=("-", "--", "-.", ":")[number // 6 % 4])
        axes.set_xlabel(x)
        axes.set_ylabel(f"{y}, %" if shares else y)
        if log_x:
            xs = sorted({x for xs, _ in series.values() for x in xs})
            axes.set_xscale("log")
            axes.set_xticks(xs, [f"{x:,.0f}" for x in xs])
            axes.minorticks_off()
        else:
            axes.locator_params(axis="x", integer=x == "epoch")
        if extra:
            extra(axes)
        if len(series) > 1:
            _legend(axes)
    return svg[0]


def intervals(name: str, rows: list[tuple[str, float, tuple[float, float]]], x: str) -> str:
    """One point with its interval for each row, first on top, in percent."""
    with _axes(name, (4.6, 1.0 + 0.26 * len(rows))) as (axes, svg):
        places = np.arange(len(rows))[::-1]
        values = np.array([100 * value for _, value, _ in rows])
        low, high = (np.array([100 * bounds[end] for _, _, bounds in rows]) for end in (0, 1))
        # rounding may put a bound of an extreme value on its other side
        errors = np.maximum([values - low, high - values], 0)
        axes.errorbar(values, places, xerr=errors, fmt="o", capsize=3)
        axes.set_yticks(places, [_shortened(label) for label, _, _ in rows])
        axes.set_xlim(-2, 102)
        axes.set_xlabel(f"{x}, %")
    return svg[0]


def reliability(name: str, before: list[dict[str, float]], after: list[dict[str, float]]) -> str:
    """How often answers of a confidence are right, before and after the temperature."""

    def points(bins: list[dict[str, float]]) -> tuple[list[float], list[float]]:
        filled = [b for b in bins if b["images"]]
        return [100 * b["confidence"] for b in filled], [b["accuracy"] for b in filled]

    def diagonal(axes: "Axes") -> None:
        axes.plot([0, 100], [0, 100], color=_TEXT, alpha=0.4, linewidth=1, linestyle=":")
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)

    series = {"before": points(before), "after temperature": points(after)}
    return lines(name, series, "confidence, %", "right answers", shares=True, extra=diagonal)


def histogram(name: str, values: NDArray[np.floating], limit: float, x: str, limit_name: str) -> str:
    """Counts of a value, with a line where a limit lies."""
    with _axes(name) as (axes, svg):
        axes.hist(values, bins=30, color=COLORS[0], alpha=0.85)
        axes.axvline(limit, color=COLORS[1], linestyle="--", label=limit_name)
        axes.set_xlabel(x)
        axes.set_ylabel("images")
        _legend(axes)
    return svg[0]


def one_against_rest(
    name: str, scores: NDArray[np.floating], labels: NDArray[np.int64], names: list[str]
) -> tuple[str, str] | None:
    """ROC curves and curves of precision over recall, one for each class; None with too many or too few classes."""
    found = {}
    if len(np.unique(labels)) > MOST_CURVES:
        return None
    for label, class_name in enumerate(names):
        if (one := curve(scores[:, label], labels == label)) is not None:
            found[class_name] = one
    if not 0 < len(found) <= MOST_CURVES:
        return None

    def drawn(kind: str, x: str, y: str, points: Callable[[Any], tuple[Any, Any]]) -> str:
        with _axes(f"{name}-{kind}") as (axes, svg):
            for number, (class_name, one) in enumerate(found.items()):
                xs, ys = points(one)
                keep = np.unique(np.linspace(0, len(xs) - 1, 200).astype(int))
                style = ("-", "--", ":")[number // len(COLORS) % 3]
                axes.plot(100 * xs[keep], 100 * ys[keep], label=_shortened(class_name), linestyle=style, linewidth=1.4)
            axes.set_xlabel(f"{x}, %")
            axes.set_ylabel(f"{y}, %")
            _legend(axes)
        return svg[0]

    return (
        drawn("roc", "false positive rate", "recall", lambda one: (one.false_positive_rate, one.recall)),
        drawn("pr", "recall", "precision", lambda one: (one.recall[1:], one.precision[1:])),
    )


def search_history(name: str, trials: Sequence[Mapping[str, Any]], metric: str, *, shares: bool) -> str:
    """The metric of every trial in their order, and the best so far; hopeless ones that were ended early as crosses."""
    with _axes(name) as (axes, svg):
        scale = 100 if shares else 1
        for state, marker in (("tried", "o"), ("pruned", "x")):
            points = [(one["number"], scale * one["value"]) for one in trials if one["state"] == state]
            if points:
                axes.plot(*zip(*points, strict=True), marker, label=state)
        best = [(one["number"], scale * one["value"]) for one in trials if one["state"] == "tried"]
        if best:
            numbers, values = zip(*best, strict=True)
            so_far = np.maximum.accumulate(values) if shares else np.minimum.accumulate(values)
            axes.step(numbers, so_far, where="post", linewidth=1.2, color=COLORS[2], label="best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel(f"{metric}, %" if shares else metric)
        axes.locator_params(axis="x", integer=True)
        _legend(axes)
    return svg[0]


def courses(name: str, trials: Mapping[str, Mapping[int, float]], best: str, metric: str, *, shares: bool) -> str:
    """The metric by epoch of trials, the best one in color."""
    with _axes(name) as (axes, svg):
        for number, course in sorted(trials.items(), key=lambda pair: pair[0] == best):
            style: dict[str, Any] = (
                {"color": COLORS[1]} if number == best else {"color": _TEXT, "alpha": 0.25, "linewidth": 1}
            )
            label = "best trial" if number == best else None
            axes.plot(list(course), [(100 if shares else 1) * v for v in course.values()], label=label, **style)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{metric}, %" if shares else metric)
        axes.locator_params(axis="x", integer=True)
        if best in trials:
            _legend(axes)
    return svg[0]


def key_against_metric(name: str, points: Sequence[tuple[Any, float]], key: str, metric: str, *, shares: bool) -> str:
    """One point a trial: what a key was set to, and the metric; words and sections stand beside each other."""
    with _axes(name) as (axes, svg):
        values = [value for value, _ in points]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        words = list(dict.fromkeys(map(str, values)))
        xs = values if numbers else [words.index(str(value)) for value in values]
        axes.plot(xs, [(100 if shares else 1) * value for _, value in points], "o", alpha=0.7)
        if not numbers:
            axes.set_xticks(range(len(words)), [_shortened(word) for word in words])
            axes.margins(x=0.2)
        elif min(values) > 0 and max(values) >= 20 * min(values):
            axes.set_xscale("log")
        axes.set_xlabel(_shortened(key, 40))
        axes.set_ylabel(f"{metric}, %" if shares else metric)
    return svg[0]


def _legend(axes: "Axes") -> None:
    """Below the plot, where it hides nothing."""
    figure: Any = axes.figure
    entries = len(axes.get_legend_handles_labels()[1])
    figure.legend(loc="outside lower center", ncols=min(entries, 3))


def _shortened(text: str, most: int = 18) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
