"""imgrec tune"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.options import FormatOption, QuietOption, SetOption

if TYPE_CHECKING:
    from imgrec_cli.rundir import Run

SHOWN = 10


def tune(
    config: Annotated[Path | None, typer.Argument(help="YAML file with a search section.", show_default=False)] = None,
    set_: SetOption = None,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Trials in all, of all processes; 20 where nothing is said.")
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the search; processes that name the same one share the work. Go on: again."
        ),
    ] = None,
    quiet: QuietOption = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """Search for better values of any key, on validation images; the best is judged on test images.

    Example: imgrec tune flowers.yaml --trials 40 --study runs/flowers-search
    """
    from imgrec_cli import api

    with output.ProgressPrinter(format_, quiet) as progress:
        run = api.tune(config, set_ or (), study=study, trials=trials, on_event=progress)
    record = run.record
    if format_ is output.Format.json:
        output.result("tune", {"run": str(run.folder), **record})
        return
    _print(run)


def _print(run: "Run") -> None:
    import csv

    record = run.record
    search, scores = record["search"], record["scores"]
    with (run.folder / "trials.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    tried = [row for row in rows if row[1] == "tried"]
    tried.sort(key=lambda row: float(row[2]), reverse=search["metric"] != "val/loss")
    output.table(
        [header[0], header[2], header[3], *header[4:]],
        ([row[0], f"{float(row[2]):.4f}", f"{float(row[3]):.1f}", *map(_shown, row[4:])] for row in tried[:SHOWN]),
    )
    counts = ", ".join(
        f"{sum(row[1] == state for row in rows)} {state}" for state in dict.fromkeys(row[1] for row in rows)
    )
    output.line(f"{len(rows)} trials: {counts}; all in {run.folder / 'trials.csv'}, as pictures in {run.report_file}")
    output.line(
        f"best: trial {search['best']}, {search['metric']} {search['value']:.4f}; "
        f"{scores['split']}: accuracy {output.percent(scores['accuracy'])} on {scores['images']} images"
    )
    for key, value in search["settings"].items():
        output.line(f"  {key}: {value if isinstance(value, str) else json.dumps(value)}")
    output.line(f"its config: {run.folder / 'best.yaml'}, its run: {run.folder / 'trials' / str(search['best'])}")


def _shown(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text if len(text) <= 24 else f"{text[:23]}…"
