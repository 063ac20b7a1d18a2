"""Several trainings in one run: one for each part of the images, or for each of several seeds."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.api.preparing import loaded_config
from imgrec_cli.api.running import NO_LOGS, Logs, begun, outcome_recorded, record_begin, resumed
from imgrec_cli.errors import InputError, Interrupted
from imgrec_cli.origin import check_earlier_runs, refuse_another_config
from imgrec_cli.progress import Listener, Note
from imgrec_cli.repeats import record as record_repeats
from imgrec_cli.reporting import write_repeats_report
from imgrec_cli.rundir import Run

if TYPE_CHECKING:
    from imgrec_cli.config import Config
    from imgrec_cli.training.stop import Stop


def begun_repeats(
    config: "Config",
    path: Path | None,
    overrides: Sequence[str],
    runs: Path,
    kind: str,
    number: int,
    stop: "Stop",
    on_event: Listener,
    logs: Logs = NO_LOGS,
) -> Run:
    """A run of several trainings: `kind` is folds or seeds. What cannot be divided is said before the first begins."""
    from imgrec_cli.config import check_class_names, check_weights
    from imgrec_cli.dataset import plan, scan

    if not 2 <= number <= 1000:
        raise InputError(f"{kind}: {number}", "from 2 to 1000 trainings make a run of several")
    if config.data.split.fold is not None:
        raise InputError(f"the config has data.split.fold, which --{kind} cannot stand beside", "leave one of them out")
    listing = scan(config.data)
    check_weights(config)
    check_class_names(config, listing.class_names)
    check_earlier_runs(config, listing.class_names)
    for place in range(1, (number if kind == "folds" else 1) + 1):  # seeds share one split
        part = _config_of_part(config, kind, place, number)
        plan(listing, part.data, part.seed)
    run = Run.create(runs, path.stem if path else "config")
    (run.folder / "checkpoints").rmdir()  # each training has its own
    options, repeats = (f"--{kind}", str(number)), {"kind": kind, "number": number}
    record_begin(run, config, path, overrides, time.time(), {"repeats": repeats}, options)
    on_event(Note(f"run {run.folder}: {number} trainings"))
    with run.held():
        try:
            _train_parts(run, config, stop, on_event, logs)
        except InputError:
            if not any(run.part(kind, place).folder.exists() for place in range(1, number + 1)):
                shutil.rmtree(run.folder, ignore_errors=True)  # as for a single run: nothing has begun
            raise
    return run


def resumed_repeats(
    run: Run,
    config: "Config | Path | str | None",
    overrides: Sequence[str],
    stop: "Stop",
    on_event: Listener,
    logs: Logs = NO_LOGS,
) -> Run:
    """The run of several trainings, gone on with where it stopped."""
    from imgrec_cli.config import load_config

    with run.held():
        stored = load_config(run.resolved_config_file)
        asked, _ = loaded_config(run.resolved_config_file if config is None else config, overrides)
        refuse_another_config(run, stored, asked, None)
        if asked.train.epochs != stored.train.epochs:
            raise InputError(
                f"{run.folder}: its trainings have {stored.train.epochs} epochs", "start a new run for more"
            )
        if run.record["status"] == "finished":
            on_event(Note(f"{run.folder} is finished: nothing is left to do"))
            if not run.report_file.exists():  # it was killed between the two
                write_repeats_report(run)
            return run
        run.update_record(status="running", error=None)
        _train_parts(run, stored, stop, on_event, logs)
        return run


def _train_parts(run: Run, config: "Config", stop: "Stop", on_event: Listener, logs: Logs) -> None:
    """Train what is left of a run of several trainings, then put their scores together."""
    from imgrec_cli.training.runtime import forget_models

    kind, number = run.record["repeats"]["kind"], run.record["repeats"]["number"]
    parts = [run.part(kind, place) for place in range(1, number + 1)]
    with outcome_recorded(run, config, time.time(), run.record.get("seconds", 0.0)):
        try:
            for place, part in enumerate(parts, 1):
                on_event(Note(f"{kind.removesuffix('s')} {place} of {number}"))
                forget_models()
                if part.record_file.is_file():
                    resumed(part, None, (), stop, on_event, logs)
                else:
                    asked = _config_of_part(_decided_as_in(parts[0], config), kind, place, number)
                    begun(asked, None, (), part.made, stop, on_event, logs)
        except Interrupted as error:
            raise Interrupted(error.message, f"to go on: imgrec train --resume {run.folder}") from None
        finally:
            stop.run = run.folder
        record_repeats(run, kind, number)
    write_repeats_report(run)


def _config_of_part(config: "Config", kind: str, place: int, number: int) -> "Config":
    """The config of one training: another part of the images judges, or another seed on the same split."""
    from imgrec_cli.config import Fold

    split = config.data.split
    if kind == "folds":
        split, seed = split.model_copy(update={"fold": Fold(number=place, of=number)}), config.seed
    else:
        kept = config.seed if split.seed is None else split.seed
        split, seed = split.model_copy(update={"seed": kept}), (config.seed + place - 1) % 2**32
    return config.model_copy(update={"seed": seed, "data": config.data.model_copy(update={"split": split})})


def _decided_as_in(first: Run, config: "Config") -> "Config":
    """The config with every `auto` of the machine as the first training has it, so that all are trained alike."""
    from imgrec_cli.config import load_config

    if not first.resolved_config_file.is_file():
        return config
    found = load_config(first.resolved_config_file)
    size = found.train.batch_size if config.train.batch_size == "auto" else config.train.batch_size
    train = config.train.model_copy(update={"precision": found.train.precision, "batch_size": size})
    return config.model_copy(update={"train": train, "runtime": found.runtime})
