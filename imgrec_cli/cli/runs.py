"""imgrec runs"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import age, started
from imgrec_cli.cli.options import FormatOption
from imgrec_cli.rundir import RUNS_FOLDER, list_runs

app = typer.Typer(name="runs", help="List the runs in ./runs and remove old ones.", invoke_without_command=True)


@app.callback()
def runs(context: typer.Context, format_: FormatOption = output.Format.human) -> None:
    """List the runs in ./runs: status, test score, age, size."""
    if context.invoked_subcommand is not None:
        return
    found = list_runs(Path(RUNS_FOLDER))
    if format_ is output.Format.json:
        output.result(
            "runs", [{"run": str(r.folder), "bytes": folder_bytes(r.folder), **record} for r, record in found]
        )
    elif not found:
        output.line("no runs in ./runs yet: imgrec train CONFIG makes one")
    else:
        output.table(
            ["run", "status", "score", "age", "size"],
            (
                [
                    run.name,
                    _status(record),
                    _score(record),
                    age(started(record)) if record["started"] else "-",
                    output.size(folder_bytes(run.folder)),
                ]
                for run, record in found
            ),
        )


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=0, help="Number of newest runs to keep.")],
) -> None:
    """Remove all but the newest runs in ./runs; those still running or of another imgrec are left alone."""
    found = list_runs(Path(RUNS_FOLDER))
    for run, record in found:
        if record["status"] == "damaged":  # or written by a newer imgrec: how old it is nobody knows
            output.note(f"left: {run.record_file} cannot be read")
    for run, record in [pair for pair in found if pair[1]["status"] != "damaged"][keep:]:
        if record["status"] == "running":
            output.note(f"left: {run.folder} is running")
            continue
        freed = folder_bytes(run.folder)
        shutil.rmtree(run.folder)
        output.line(f"removed {run.folder}, {output.size(freed)}")


def _status(record: dict[str, object]) -> str:
    status = f"{record['status']}, resumable" if record.get("resumable") else str(record["status"])
    repeats = record.get("repeats")
    return f"{status}, {repeats['number']} {repeats['kind']}" if isinstance(repeats, dict) else status


def _score(record: dict[str, object]) -> str:
    scores = record.get("scores")
    return f"{scores['split']} {output.percent(scores['accuracy'])}" if isinstance(scores, dict) else "-"


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # a training run removes its temporary files meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total
