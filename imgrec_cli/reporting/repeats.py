"""A run of several trainings → its `report.html`, with links to the page of each."""

from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from imgrec_cli.atomic import write_text
from imgrec_cli.errors import InputError
from imgrec_cli.reporting import plots
from imgrec_cli.reporting.findings import interval, percent
from imgrec_cli.rundir import Run


def write_repeats_report(run: Run, file: Path | None = None) -> Path:
    """Write the page of a finished run of several trainings and return its path, `report.html` in the run by default.

    Raises InputError where not all of them are finished.
    """
    import jinja2

    record = run.record
    repeats = record["repeats"]
    if "figures" not in repeats:
        raise InputError(f"{run.folder}: not finished yet", f"go on with it: imgrec train --resume {run.folder}")
    kind, number = repeats["kind"], repeats["number"]
    parts = [run.part(kind, place) for place in range(1, number + 1)]
    scores = [part.record["scores"] for part in parts]
    names = [f"{kind.removesuffix('s')} {place}" for place in range(1, number + 1)]
    points = [(name, one["accuracy"], tuple(one["accuracy_interval"])) for name, one in zip(names, scores, strict=True)]
    here = resources("imgrec_cli.reporting")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string((here / "repeats.html.j2").read_text(encoding="utf-8")).render(
        style=(here / "report.css").read_text(encoding="utf-8"),
        name=record["name"],
        kind=kind,
        number=number,
        split=record["scores"]["split"],
        record=record,
        accuracy=percent(record["scores"]["accuracy"]),
        accuracy_interval=interval(record["scores"]["accuracy_interval"]),
        figures=[_figure(name, found) for name, found in repeats["figures"].items()],
        plot=plots.intervals("repeats", points, "accuracy"),
        parts=[
            {
                "name": name,
                "link": part.report_file.relative_to(run.folder).as_posix(),
                "accuracy": percent(one["accuracy"]),
                "interval": interval(one["accuracy_interval"]),
                "macro_f1": percent(one["macro_f1"]),
                "images": f"{one['images']:,}",
                "seconds": f"{part.record['seconds']:,.0f}",
            }
            for name, one, part in zip(names, scores, parts, strict=True)
        ],
    )
    target = file or run.report_file
    write_text(target, page)
    return target


def _figure(name: str, found: dict[str, Any]) -> dict[str, str]:
    """A row of the table; Matthews' coefficient is no share."""
    if name == "mcc":
        low, high = found["interval"]
        return {
            "name": name,
            "mean": f"{found['mean']:.3f}",
            "deviation": f"{found['deviation']:.3f}",
            "interval": f"{low:.3f} to {high:.3f}",
        }
    return {
        "name": name,
        "mean": percent(found["mean"]),
        "deviation": f"{100 * found['deviation']:.1f} points",
        "interval": interval(found["interval"]),
    }
