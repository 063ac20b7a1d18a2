"""A search → its `report.html`: every trial, how the search went, what each key did."""

from collections.abc import Mapping, Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from imgrec_cli.atomic import write_text
from imgrec_cli.reporting import plots
from imgrec_cli.rundir import Run

MOST_COURSES = 40


def write_search_report(
    run: Run,
    keys: Sequence[str],
    trials: Sequence[Mapping[str, Any]],
    courses: Mapping[int, Mapping[int, float]],
    importances: Mapping[str, float],
    metric: str,
) -> Path:
    """Write the page of a search and return its path, `report.html` in its run.

    `trials` hold number, state, value, seconds and settings; `courses` the metric by epoch; `importances` the share of
    its variance that each key explains.
    """
    import jinja2

    record = run.record
    shares = metric != "val/loss"
    ended = [one for one in trials if one["value"] is not None and one["state"] in ("tried", "pruned")]
    tried = [one for one in ended if one["state"] == "tried"]
    order = sorted(tried, key=lambda one: one["value"], reverse=shares)
    here = resources("imgrec_cli.reporting")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    figures = [("How the search went", plots.search_history("history", ended, metric, shares=shares))]
    if courses:
        shown = {str(n): courses[n] for n in [one["number"] for one in ended][-MOST_COURSES:] if courses.get(n)}
        figures.append(
            (
                f"{metric} by epoch",
                plots.courses("courses", shown, str(record["search"]["best"]), metric, shares=shares),
            )
        )
    figures += [
        (
            key,
            plots.key_against_metric(
                f"key-{number}", [(one["settings"].get(key), one["value"]) for one in tried], key, metric, shares=shares
            ),
        )
        for number, key in enumerate(keys)
    ]
    page = environment.from_string((here / "search.html.j2").read_text(encoding="utf-8")).render(
        style=(here / "report.css").read_text(encoding="utf-8"),
        record=record,
        metric=metric,
        keys=keys,
        figures=figures,
        importances=sorted(importances.items(), key=lambda pair: -pair[1]),
        trials=[*order, *(one for one in trials if one not in order)],
    )
    write_text(run.report_file, page)
    return run.report_file
