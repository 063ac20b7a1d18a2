"""The verbs that train: a run begun or gone on with, one trained again, and what a training tells without a run."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.api.preparing import loaded_config, prepared
from imgrec_cli.api.repeating import begun_repeats, resumed_repeats
from imgrec_cli.api.running import Logs, begun, resumed, stoppable
from imgrec_cli.errors import InputError, require_tensorflow
from imgrec_cli.origin import Reproduction, compared
from imgrec_cli.progress import Listener, Note, Warn, ignore
from imgrec_cli.rundir import RUNS_FOLDER, Run, unfinished_run

if TYPE_CHECKING:
    from imgrec_cli.config import Config
    from imgrec_cli.dataset.issues import LabelIssues
    from imgrec_cli.training.job import Job
    from imgrec_cli.training.speed import Speeds


def train(
    config: "Config | Path | str | None" = None,
    overrides: Sequence[str] = (),
    *,
    resume: Path | str | None = None,
    runs: Path = Path(RUNS_FOLDER),
    folds: int | None = None,
    seeds: int | None = None,
    tensorboard: bool = False,
    mlflow: bool = False,
    on_event: Listener = ignore,
) -> Run:
    """Train a classifier, ship it, judge it, and return the finished run, a new folder below `runs`.

    `config` is a configuration or the path of its YAML file, `overrides` are `key=value` texts for a file. With
    `resume` the unfinished run in that folder goes on from its last checkpoint instead, to the same bits as if it had
    never stopped; a config is then needed for nothing, and refused where it differs in more than a larger
    `train.epochs` or another `distribute`. `resume="auto"` goes on with the newest unfinished run of the config's name
    where there is one. Where the environment announces peers, this process trains with them; the run that all return
    is written by the first. With `folds` or `seeds` the run holds as many trainings, each a run of its own: one for
    each part of the images, which judges it, or one for each of several seeds on one split. With `tensorboard` a run
    also gets a folder of that name with every epoch's figures; with `mlflow` config, figures, scores and bundle also go
    to MLflow, to where its environment variables say. The first SIGINT or SIGTERM saves all state and raises
    Interrupted. Raises the kinds of imgrec_cli.errors; a run that began is then marked and kept.
    """
    if tensorboard:
        from imgrec_cli.training.tensorboard import require_tensorboard

        require_tensorboard()
    if mlflow:
        from imgrec_cli.tracking.mlflow import require_mlflow

        require_mlflow()
    logs = Logs(tensorboard=tensorboard, mlflow=mlflow)
    with stoppable() as stop:
        if folds is not None and seeds is not None:
            raise InputError("folds and seeds are both given", "repeat a training by one of them")
        repeated = folds is not None or seeds is not None
        if resume is not None and repeated:
            raise InputError("a run goes on as it began", "leave --folds and --seeds out beside --resume")
        if config is None and resume in (None, "auto"):
            raise InputError("no config is given", "name a YAML file, or a run to go on with: --resume RUN")
        from imgrec_cli.training.job import join

        source = _to_go_on_with(resume or "").resolved_config_file if config is None else config
        given, path = loaded_config(source, overrides)
        name = path.stem if path else "config"
        job = join(given)
        on_event = job.listener(on_event)
        if resume == "auto":
            # only one looks: whoever looks holds each run for a moment, and another would take it for one at work
            found = unfinished_run(runs, name) if job.leads else None
            resume = job.said_by_leader(str(found or "")) or None
        if resume is not None:
            run = _to_go_on_with(resume)
            if "repeats" not in run.record:
                return resumed(run, config, overrides, stop, on_event, logs, job)
            _refuse_peers(job)
            return resumed_repeats(run, config, overrides, stop, on_event, logs)
        if repeated:
            _refuse_peers(job)
            kind, number = ("folds", folds) if folds is not None else ("seeds", seeds)
            return begun_repeats(given, path, overrides, runs, kind, number or 0, stop, on_event, logs)
        return begun(given, path, overrides, partial(Run.create, runs, name), stop, on_event, logs, job)


def _to_go_on_with(folder: Path | str) -> Run:
    run = Run.open(Path(folder))
    if "search" in run.record:
        raise InputError(f"{run.folder}: this is a search", f"to go on: imgrec tune --study {run.folder}")
    return run


def _refuse_peers(job: "Job") -> None:
    if job.count > 1:
        raise InputError(
            f"{job.count} processes were started as one, and a run of several trainings is for one",
            "start it in one process; each training may still use all devices of its host",
        )


def reproduce(run: Path | str, *, runs: Path = Path(RUNS_FOLDER), on_event: Listener = ignore) -> Reproduction:
    """Train a finished run again, from its stored config, and compare images, metrics and weights to the bit.

    The second run is a new folder below `runs`. Raises InputError where the first did not finish.
    """
    from imgrec_cli.config import load_config

    first = Run.open(Path(run))
    record = first.record
    if record["status"] != "finished":
        raise InputError(
            f"{first.folder}: did not finish, its status is {record['status']}", "imgrec train --resume goes on with it"
        )
    config = load_config(first.resolved_config_file)
    for extended in record.get("extended", ()):
        on_event(Warn(f"the run was given {extended['to_epochs']} epochs after {extended['from_epochs']}"))
    on_event(Note(f"training {first.folder} again"))
    with stoppable() as stop:
        second = begun(config, None, (), partial(Run.create, runs, f"again-{first.name}"), stop, on_event)
    return compared(first, second)


def bench(config: Path | str, overrides: Sequence[str] = (), *, on_event: Listener = ignore) -> "tuple[Speeds, int]":
    """How fast a config trains on this machine, part by part, and the peak memory of measuring it in bytes."""
    from imgrec_cli.config import load_config
    from imgrec_cli.machine import peak_memory_bytes

    dataset, resolved = prepared(load_config(Path(config), overrides), on_event)
    from imgrec_cli.training.speed import measure

    return measure(resolved, dataset), peak_memory_bytes()


def label_issues(
    config: "Config | Path | str", overrides: Sequence[str] = (), *, folds: int = 5, on_event: Listener = ignore
) -> "LabelIssues":
    """All images of a config, those whose labels are most likely wrong first.

    The config is trained once for each of `folds` parts, which it does not see. Images that a correction speaks of are
    left out of the list: somebody has looked at them.
    """
    import numpy as np

    from imgrec_cli.config import Config, load_config
    from imgrec_cli.dataset.issues import Issue, LabelIssues, doubtful_order, suggestions

    if not isinstance(config, Config):
        config = load_config(Path(config), overrides)
    require_tensorflow("finding label issues")
    dataset, resolved = prepared(config, on_event)
    from imgrec_cli.training.out_of_fold import out_of_fold_probabilities

    probabilities = out_of_fold_probabilities(resolved, dataset, folds, on_event)
    labels = np.array([example.label for example in dataset.examples], np.int64)
    order, doubted = doubtful_order(probabilities, labels)
    suggested = suggestions(probabilities, labels)
    issues = []
    for index in order.tolist():
        example, other = dataset.examples[index], int(suggested[index])
        if example.row not in dataset.decided:
            issues.append(
                Issue(
                    file=example.file,
                    shown=dataset.shown[index],
                    split=example.split,
                    digest=dataset.digest(example),
                    label=dataset.class_names[example.label],
                    suggested=dataset.class_names[other],
                    given_probability=float(probabilities[index, example.label]),
                    suggested_probability=float(probabilities[index, other]),
                    doubted=bool(doubted[index]),
                )
            )
    return LabelIssues(dataset.class_names, dict(config.data.classes.titles), config.data.corrections, issues)
