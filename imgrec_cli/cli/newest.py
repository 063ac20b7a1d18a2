"""The model a command uses when none is named: the newest finished run, said on standard error."""

import time
from calendar import timegm
from pathlib import Path
from typing import Any

from imgrec_cli.cli import output
from imgrec_cli.rundir import RUNS_FOLDER, newest_finished_run


def chosen_model(model: Path | None) -> Path:
    """`model`, or the newest finished run in ./runs, named on standard error with its age and score."""
    if model is not None:
        return model
    run, record = newest_finished_run(Path(RUNS_FOLDER))
    scores = record["scores"]
    score = f"{scores['split']} accuracy {output.percent(scores['accuracy'])}"
    output.note(f"using {run.folder}, {age(started(record))} old, {score}")
    return run.folder


def started(record: dict[str, Any]) -> float:
    """When a run began, in seconds since the epoch, from its record."""
    return timegm(time.strptime(record["started"], "%Y-%m-%dT%H:%M:%SZ"))


def age(since: float) -> str:
    """Time since a moment (seconds since the epoch), in the largest whole unit."""
    seconds = max(time.time() - since, 0)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
