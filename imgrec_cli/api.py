"""The verbs: train: Config → Run, reproduce: Run → Run, evaluate: Bundle × images → Evaluation, bench: Config → speeds.
Each calls the parts in order."""

import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.bundle import MANIFEST, TARGETS, Manifest
from imgrec_cli.classifier import Classifier
from imgrec_cli.comparison import Comparison, read_judged
from imgrec_cli.comparison import compare as compare_judged
from imgrec_cli.errors import (
    ConfigError,
    DataError,
    ImgrecError,
    InputError,
    Interrupted,
    MissingExtraError,
    ParityError,
    TrainingError,
    install_command,
)
from imgrec_cli.evaluation import Evaluation, LabelledImage, evaluate_files
from imgrec_cli.explanation import Explanation, explain_files
from imgrec_cli.origin import (
    Reproduction,
    check_earlier_runs,
    command,
    compared,
    config_differences,
    differences,
    git_record,
    machine_record,
    refuse_another_config,
    refuse_other_images,
    without_home,
)
from imgrec_cli.progress import Advance, EpochEnd, Event, Listener, Note, Step, Warn, ignore
from imgrec_cli.repeats import record as record_repeats
from imgrec_cli.reporting import write_card, write_repeats_report, write_report
from imgrec_cli.rundir import (
    RUNS_FOLDER,
    RecordedExample,
    Run,
    full_disk_said,
    newest_finished_run,
    write_csv,
    write_json,
    write_text,
)
from imgrec_cli.stress import Stress
from imgrec_cli.stress import stress as measure_stress

if TYPE_CHECKING:
    from imgrec_cli.config import Config, Space
    from imgrec_cli.dataset import Dataset, Listing
    from imgrec_cli.dataset.issues import LabelIssues
    from imgrec_cli.study import Study, Trial
    from imgrec_cli.training.compress import Search
    from imgrec_cli.training.runtime import Machine
    from imgrec_cli.training.speed import Speeds
    from imgrec_cli.training.stop import Stop


@dataclass(frozen=True, slots=True)
class Exported:
    """One export: its bundle's place and manifest, or the error that kept it from being written."""

    target: str
    place: Path
    manifest: Manifest | None
    error: ImgrecError | None


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
    `train.epochs`. With `folds` or `seeds` the run holds as many trainings, each a run of its own: one for each part of
    the images, which judges it, or one for each of several seeds on one split. With `tensorboard` a run also gets a
    folder of that name with every epoch's figures; with `mlflow` config, figures, scores and bundle also go to MLflow,
    to where its environment variables say. The first SIGINT or SIGTERM saves all state and raises Interrupted. Raises
    the kinds of imgrec_cli.errors; a run that began is then marked and kept.
    """
    if tensorboard:
        from imgrec_cli.training.tensorboard import require_tensorboard

        require_tensorboard()
    if mlflow:
        from imgrec_cli.tracking.mlflow import require_mlflow

        require_mlflow()
    logs = Logs(tensorboard=tensorboard, mlflow=mlflow)
    with _stoppable() as stop:
        if folds is not None and seeds is not None:
            raise InputError("folds and seeds are both given", "repeat a training by one of them")
        if resume is not None:
            if folds is not None or seeds is not None:
                raise InputError("a run goes on as it began", "leave --folds and --seeds out beside --resume")
            return _resumed(Run.open(Path(resume)), config, overrides, stop, on_event, logs)
        if config is None:
            raise InputError("no config is given", "name a YAML file, or a run to go on with: --resume RUN")
        given, path = _loaded(config, overrides)
        name = path.stem if path else "config"
        if folds is not None or seeds is not None:
            kind, number = ("folds", folds) if folds is not None else ("seeds", seeds)
            return _begun_repeats(given, path, overrides, runs, kind, number or 0, stop, on_event, logs)
        return _begun(given, path, overrides, partial(Run.create, runs, name), stop, on_event, logs)


@dataclass(frozen=True, slots=True)
class Logs:
    """Where the figures of a run go beside its folder."""

    tensorboard: bool = False
    mlflow: bool = False


NO_LOGS = Logs()


@contextmanager
def _stoppable() -> "Iterator[Stop]":
    """A block that trains: a signal ends it with Interrupted, a second SIGINT with KeyboardInterrupt."""
    from imgrec_cli.training.stop import stopping

    if find_spec("tensorflow") is None:  # whatever the backend: the export needs it
        raise MissingExtraError("training needs tensorflow, which is not installed", install_command("train"))
    with stopping() as stop:
        try:
            yield stop
        except KeyboardInterrupt:
            if stop.at_once or not stop.is_asked:
                raise
            raise stop.error() from None


def _begun(
    config: "Config",
    path: Path | None,
    overrides: Sequence[str],
    create: Callable[[], Run],
    stop: "Stop",
    on_event: Listener,
    logs: Logs = NO_LOGS,
) -> Run:
    from imgrec_cli.config import resolved_yaml

    started = time.time()
    listing, machine, config = _started(config, on_event)
    check_earlier_runs(config, listing.class_names)
    run = create()
    with run.held():
        try:
            if path:
                write_text(run.config_file, path.read_text(encoding="utf-8-sig"))
            write_text(run.resolved_config_file, resolved_yaml(config, run.folder))
            run.update_record(
                name=run.name,
                status="running",
                started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
                command=command(path, overrides) if path else None,
                git=git_record(path),
                overrides=[without_home(setting) for setting in overrides],
                seed=config.seed,
                precision=config.train.precision,
                **_machine_record(machine),
            )
            stop.run = run.folder
            on_event(Note(f"run {run.folder}"))
            with _outcome_recorded(run, config, started):
                _worked(config, listing, machine, run, stop, on_event, logs)
            write_report(run)
        except InputError:
            if not run.examples_file.exists():  # such as images that cannot be trained on: nothing has begun
                shutil.rmtree(run.folder, ignore_errors=True)
            raise
    return run


def _worked(
    config: "Config", listing: "Listing", machine: "Machine", run: Run, stop: "Stop", on_event: Listener, logs: Logs
) -> None:
    """Load, fit, export and judge, with the logs that were asked for."""
    dataset, config = _loaded_images(config, listing, machine, run, on_event)
    if logs.tensorboard:
        from imgrec_cli.training.tensorboard import with_scalars

        on_event = with_scalars(run.tensorboard_folder, on_event)
    if not logs.mlflow:
        _fit_export_judge(config, dataset, run, stop, on_event)
        return
    from imgrec_cli.tracking.mlflow import tracked

    with tracked(run, config.model_dump(mode="json"), on_event) as listen:
        _fit_export_judge(config, dataset, run, stop, listen)


def _resumed(
    run: Run,
    given: "Config | Path | str | None",
    overrides: Sequence[str],
    stop: "Stop",
    on_event: Listener,
    logs: Logs = NO_LOGS,
) -> Run:
    from imgrec_cli.config import load_config, resolved_yaml

    started = time.time()
    with run.held():
        record = run.record
        if "search" in record:
            raise InputError(f"{run.folder}: this is a search", f"to go on: imgrec tune --study {run.folder}")
        if "repeats" in record:
            return _resumed_repeats(run, given, overrides, stop, on_event, logs)
        stored = load_config(run.resolved_config_file)
        config, _ = _loaded(run.resolved_config_file if given is None else given, overrides)
        images = record["data"]["images"]["train"] if "data" in record else None
        refuse_another_config(run, stored, config, images)
        epochs = config.train.epochs
        config = stored.model_copy(update={"train": stored.train.model_copy(update={"epochs": epochs})})
        if record["status"] == "finished" and epochs == stored.train.epochs:
            on_event(Note(f"{run.folder} is finished: nothing is left to do"))
            _drop_what_only_training_needs(run, config)
            if not run.report_file.exists():  # it was killed between the two
                write_report(run)
            return run
        if record["status"] == "finished" and not run.last_checkpoint.exists():
            raise InputError(
                f"{run.folder}: finished, and kept no state to go on from",
                "a run that shall be given more epochs later needs train.keep_optimizer=true from the begin",
            )
        stop.run = run.folder
        listing, machine, config = _started(config, on_event)
        here = _machine_record(machine)
        differing = differences(record, here)
        if differing:
            on_event(Warn(f"the run continues, not bit-exact: {'; '.join(differing)}"))
        write_text(run.resolved_config_file, resolved_yaml(config, run.folder))
        history = [
            *record.get("resumed", ()),
            {"command": command(None, overrides, run.folder), "differing": differing},
        ]
        changes = {"status": "running", "resumed": history, "error": None, **here}
        if epochs > stored.train.epochs:
            extended = {"from_epochs": stored.train.epochs, "to_epochs": epochs}
            changes["extended"] = [*record.get("extended", ()), extended]
        run.update_record(**changes)
        with _outcome_recorded(run, config, started, record.get("seconds", 0.0)):
            _worked(config, listing, machine, run, stop, on_event, logs)
        write_report(run)
    return run


def _begun_repeats(
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
    from imgrec_cli.config import check_class_names, check_weights, resolved_yaml
    from imgrec_cli.dataset import plan, scan

    if not 2 <= number <= 1000:
        raise InputError(f"{kind}: {number}", "from 2 to 1000 trainings make a run of several")
    if config.data.split.fold is not None:
        raise InputError(f"the config has data.split.fold, which --{kind} cannot stand beside", "leave one of them out")
    listing = scan(config.data)
    check_weights(config)
    check_class_names(config, listing.class_names)
    check_earlier_runs(config, listing.class_names)
    for place in range(1, number + 1):
        part = _config_of_part(config, kind, place, number)
        plan(listing, part.data, part.seed)
    run = Run.create(runs, path.stem if path else "config")
    (run.folder / "checkpoints").rmdir()  # each training has its own
    if path:
        write_text(run.config_file, path.read_text(encoding="utf-8-sig"))
    write_text(run.resolved_config_file, resolved_yaml(config, run.folder))
    run.update_record(
        name=run.name,
        status="running",
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        command=f"{command(path, overrides)} --{kind} {number}" if path else None,
        git=git_record(path),
        overrides=[without_home(setting) for setting in overrides],
        seed=config.seed,
        repeats={"kind": kind, "number": number},
    )
    on_event(Note(f"run {run.folder}: {number} trainings"))
    with run.held():
        try:
            _train_parts(run, config, stop, on_event, logs)
        except InputError:
            if not any(run.part(kind, place).folder.exists() for place in range(1, number + 1)):
                shutil.rmtree(run.folder, ignore_errors=True)  # as for a single run: nothing has begun
            raise
    return run


def _resumed_repeats(
    run: Run,
    config: "Config | Path | str | None",
    overrides: Sequence[str],
    stop: "Stop",
    on_event: Listener,
    logs: Logs,
) -> Run:
    from imgrec_cli.config import load_config

    stored = load_config(run.resolved_config_file)
    asked, _ = _loaded(run.resolved_config_file if config is None else config, overrides)
    refuse_another_config(run, stored, asked, None)
    if asked.train.epochs != stored.train.epochs:
        raise InputError(f"{run.folder}: its trainings have {stored.train.epochs} epochs", "start a new run for more")
    if run.record["status"] == "finished":
        on_event(Note(f"{run.folder} is finished: nothing is left to do"))
        return run
    run.update_record(status="running", error=None)
    _train_parts(run, stored, stop, on_event, logs)
    return run


def _train_parts(run: Run, config: "Config", stop: "Stop", on_event: Listener, logs: Logs) -> None:
    """Train what is left of a run of several trainings, then put their scores together."""
    from imgrec_cli.training.runtime import forget_models

    kind, number = run.record["repeats"]["kind"], run.record["repeats"]["number"]
    parts = [run.part(kind, place) for place in range(1, number + 1)]
    with _outcome_recorded(run, config, time.time(), run.record.get("seconds", 0.0)):
        try:
            for place, part in enumerate(parts, 1):
                on_event(Note(f"{kind.removesuffix('s')} {place} of {number}"))
                forget_models()
                if part.record_file.is_file():
                    _resumed(part, None, (), stop, on_event, logs)
                else:
                    asked = _config_of_part(_decided_as_in(parts[0], config), kind, place, number)
                    _begun(asked, None, (), part.made, stop, on_event, logs)
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


def tune(
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    study: Path | str | None = None,
    trials: int | None = None,
    runs: Path = Path(RUNS_FOLDER),
    on_event: Listener = ignore,
) -> Run:
    """Train with other values of the keys in the config's `search` section, and return the run of the whole search.

    `study` is its folder, a new one below `runs` by default; a search that lies there is gone on with, by any number of
    processes at once, and then needs no config. `trials` are how many there are to be in all. Trials are trained and
    judged on validation images; the winner alone is exported and judged on test images. Raises the kinds of
    imgrec_cli.errors; what is over when it stops stays.
    """
    from imgrec_cli.config import Space
    from imgrec_cli.study import Study, require_optuna

    require_optuna()
    if config is None and study is None:
        raise InputError("no config is given", "name a YAML file with a search section, or a search: --study DIR")
    with _stoppable() as stop:
        space = None if config is None else Space.read(Path(config), overrides)
        if space is None and overrides:
            raise InputError("a search goes on as it began", "leave --set out, or name the config again")
        run = _folder_of_search(space, None if study is None else Path(study), runs)
        try:
            found = Study(run) if space is None else Study.begun(run, space, trials)
            if trials is not None and trials != found.trials:
                found.extend(trials)
            if not run.record_file.exists():
                run.update_record(
                    name=run.name,
                    status="running",
                    started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    command=without_home(shlex.join(["imgrec", "tune", str(config), "--study", str(run.folder)])),
                    git=git_record(None if config is None else Path(config)),
                    seed=found.seed,
                    search={"trials": found.trials, "metric": found.metric},
                )
            on_event(Note(f"search {run.folder}: {found.trials} trials by {found.metric}"))
            _search(found, stop, on_event)
            _judge_the_winner(found, stop, on_event)
        except InputError:
            if study is None and not run.trials():
                shutil.rmtree(run.folder, ignore_errors=True)  # nothing has begun
            raise
        except (Interrupted, KeyboardInterrupt) as error:
            if not stop.is_asked or stop.at_once:
                raise
            told = error.message if isinstance(error, Interrupted) else stop.error().message
            raise Interrupted(told, f"to go on: imgrec tune --study {run.folder}") from None
    return run


def _folder_of_search(space: "Space | None", folder: Path | None, runs: Path) -> Run:
    if folder is None:
        run = Run.create(runs, Path(space.name).stem if space else "search")
        (run.folder / "checkpoints").rmdir()
        return run
    if space is None and not (folder / "study.json").is_file():
        raise InputError(f"{folder}: holds no search", "begin one: imgrec tune CONFIG --study DIR")
    if (folder / "run.json").is_file() and not (folder / "study.json").is_file():
        raise InputError(f"{folder}: a run that is no search", "name another folder with --study")
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder)


def _search(study: "Study", stop: "Stop", on_event: Listener) -> None:
    """Take one trial after another until there are as many as wanted, those of other processes among them."""
    from imgrec_cli.config import check_class_names, check_weights
    from imgrec_cli.dataset import scan
    from imgrec_cli.study import wait_for_others
    from imgrec_cli.training.runtime import forget_models

    config = study.space.config
    listing = scan(config.data)
    check_weights(config)
    check_class_names(config, listing.class_names)
    check_earlier_runs(config, listing.class_names)
    _, machine, decided = _started(config, on_event, listing)
    study.settle("train.precision", decided.train.precision)
    study.settle("train.batch_size", str(decided.train.batch_size))
    images: dict[str, Dataset] = {}
    told = 0
    while True:
        with study.next_trial() as trial:
            if trial is not None:
                _try(study, trial, listing, machine, images, stop, on_event)
                forget_models()
                continue
        others = study.others_at_work()
        if not others:
            return
        if others != told:
            on_event(Note(f"waiting for {others} trials of other processes"))
            told = others
        wait_for_others()


def _try(
    study: "Study",
    trial: "Trial",
    listing: "Listing",
    machine: "Machine",
    images: "dict[str, Dataset]",
    stop: "Stop",
    on_event: Listener,
) -> None:
    """One trial: trained and judged on validation images; `images` keeps those that the next ones may need too."""
    from imgrec_cli.config import resolved_yaml, written
    from imgrec_cli.study import Pruned
    from imgrec_cli.training.fit import fit
    from imgrec_cli.training.runtime import out_of_memory_errors

    started, run = time.time(), trial.run
    value, state, why, best_epoch = None, "pruned", "", 0

    def listen(event: Event) -> None:
        if isinstance(event, EpochEnd):
            trial.report([line[study.metric] for line in run.read_metrics()])
        elif isinstance(event, Step | Advance) or (isinstance(event, Warn) and trial.number == 0):
            on_event(event)

    try:
        config = study.space.of_trial(trial.settings)
        _, machine, config = _started(config, ignore, listing)
        if not run.record_file.exists():
            write_text(run.resolved_config_file, resolved_yaml(config, run.folder))
            run.update_record(
                name=run.name,
                status="running",
                started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
                command=None,
                git=None,
                overrides=[],
                seed=config.seed,
                precision=config.train.precision,
                **_machine_record(machine),
            )
        size = repr(config.image)
        dataset, config = _loaded_images(config, listing, machine, run, listen, images.get(size))
        images[size] = dataset
        best_epoch = fit(config, dataset, run, stop, listen).best_epoch
        value, state = run.read_metrics()[best_epoch - 1][study.metric], "tried"
    except Pruned:
        pass
    except (ConfigError, TrainingError) as error:
        state, why = "failed", error.message.splitlines()[0]
    except out_of_memory_errors():
        state, why = "failed", "a batch does not fit into the memory of this device"
    seconds = round(time.time() - started, 1)
    run.update_record(status=state, error=why or None, resumable=False, seconds=seconds, best_epoch=best_epoch)
    study.end(trial, value, state, why)
    shown = ", ".join(f"{key}: {written(value)}" for key, value in trial.settings.items())
    result = f"{study.metric} {value:.4f}" if value is not None else state + (f" ({why})" if why else "")
    on_event(Note(f"trial {trial.number}: {result}, {seconds:.1f} s; {shown}"))


def _judge_the_winner(study: "Study", stop: "Stop", on_event: Listener) -> None:
    """Export the best trial, judge it on the test images, and write what was found; one process does."""
    from imgrec_cli.config import resolved_yaml
    from imgrec_cli.reporting.search import write_search_report
    from imgrec_cli.study import as_rows, finishing

    run = study.run
    with finishing(run):
        ranked, table = study.ranked(), study.table()
        if not ranked:
            reasons = {study.run_of(one.number).record.get("error") for one in table if one.state == "failed"}
            told = "; ".join(sorted(str(reason) for reason in reasons if reason)[:3])
            raise TrainingError(f"{run.folder}: none of {len(table)} trials ended well" + (f": {told}" if told else ""))
        for best in ranked:
            winner = study.run_of(best.number)
            if winner.record["status"] == "finished":
                break
            on_event(Note(f"trial {best.number} is the best; it alone is judged on test images"))
            try:
                _resumed(winner, None, (), stop, on_event)
            except ParityError as error:  # such as weights grown so large that rounding shows
                on_event(Warn(f"trial {best.number} cannot be shipped, the next best is taken: {error.message}"))
            else:
                break
        else:
            raise ParityError(f"{run.folder}: none of {len(ranked)} trials can be shipped")
        write_text(run.folder / "best.yaml", resolved_yaml(study.space.of_trial(best.settings), run.folder))
        keys = list(study.space.ranges)
        write_csv(
            run.folder / "trials.csv",
            ["trial", "state", study.metric, "seconds", *keys],
            (
                [one.number, one.state, one.value, one.seconds, *(one.settings.get(key) for key in keys)]
                for one in table
            ),
        )
        found = {
            "trials": len(table),
            "metric": study.metric,
            "best": best.number,
            "value": best.value,
            "settings": best.settings,
        }
        run.update_record(status="finished", scores=winner.record["scores"], search=found)
        write_search_report(run, keys, as_rows(table), study.courses(), study.importances(), study.metric)


def _loaded(given: "Config | Path | str", overrides: Sequence[str]) -> "tuple[Config, Path | None]":
    from imgrec_cli.config import Config, load_config

    if not isinstance(given, Config):
        return load_config(Path(given), overrides), Path(given)
    if overrides:
        raise InputError("overrides belong to a config file", "give them to load_config, or give the file's path")
    return given, None


@contextmanager
def _outcome_recorded(run: Run, config: "Config", started: float, seconds_before: float = 0.0) -> Iterator[None]:
    """Write into `run.json` how the block ended and how long it took; a finished run then drops what only training
    needs, unless the config keeps it."""

    def seconds() -> float:
        return round(seconds_before + time.time() - started, 1)

    try:
        with full_disk_said(run.folder):
            yield
    except BaseException as error:
        reason = without_home(error.message) if isinstance(error, ImgrecError) else type(error).__name__
        stopped = isinstance(error, KeyboardInterrupt | Interrupted)
        # what failed by itself would fail again, to the bit
        resumable = not isinstance(error, TrainingError | ParityError)
        with suppress(ImgrecError, OSError):  # such as on a full disk: the first error is the one to tell
            run.update_record(
                status="interrupted" if stopped else "failed", error=reason, resumable=resumable, seconds=seconds()
            )
        if isinstance(error, OSError) and not run.folder.is_dir():
            raise InputError(
                f"{run.folder}: this folder vanished while the run was writing to it",
                "put it back as it was, such as by mounting its disk, then go on with imgrec train --resume",
            ) from error
        raise
    run.update_record(status="finished", error=None, resumable=False, seconds=seconds())
    _drop_what_only_training_needs(run, config)


def _drop_what_only_training_needs(run: Run, config: "Config") -> None:
    if not config.train.keep_optimizer:
        run.drop_checkpoints()


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
    with _stoppable() as stop:
        second = _begun(config, None, (), partial(Run.create, runs, f"again-{first.name}"), stop, on_event)
    return compared(first, second)


def bench(config: Path | str, overrides: Sequence[str] = (), *, on_event: Listener = ignore) -> "tuple[Speeds, int]":
    """How fast a config trains on this machine, part by part, and the peak memory of measuring it in bytes."""
    from imgrec_cli.config import load_config
    from imgrec_cli.machine import peak_memory_bytes

    dataset, resolved = _prepare(load_config(Path(config), overrides), on_event)
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
    if find_spec("tensorflow") is None:
        raise MissingExtraError("finding label issues trains models, which needs tensorflow", install_command("train"))
    dataset, resolved = _prepare(config, on_event)
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


def _prepare(config: "Config", on_event: Listener) -> "tuple[Dataset, Config]":
    """The images, and the config with every `auto` resolved, outside of a run."""
    listing, machine, config = _started(config, on_event)
    return _loaded_images(config, listing, machine, None, on_event)


def _started(
    config: "Config", on_event: Listener, listing: "Listing | None" = None
) -> "tuple[Listing, Machine, Config]":
    """List the images, start the backend, and resolve every `auto` that the machine decides; the first thing said is
    device and precision."""
    from imgrec_cli.config import BackboneModel, check_class_names, check_weights
    from imgrec_cli.dataset import scan
    from imgrec_cli.training import runtime

    listing = scan(config.data) if listing is None else listing
    check_weights(config)
    check_class_names(config, listing.class_names)
    machine = runtime.start(config.runtime)
    from imgrec_cli.training.families import weights_file
    from imgrec_cli.training.speed import choose_batch_size, choose_precision

    if isinstance(config.model, BackboneModel):
        weights_file(config.model, config.image)  # a download, or why there is none, comes before all else

    classes = len(listing.class_names)
    images = sum(example.split == "train" for example in listing.examples)
    precision, reason = choose_precision(config, classes, images, machine)
    config = config.model_copy(
        update={
            "train": config.train.model_copy(update={"precision": precision}),
            "runtime": config.runtime.model_copy(
                update={
                    "device": machine.device,
                    "threads": machine.threads,
                    "backend": machine.backend,
                    "deterministic": machine.deterministic,
                }
            ),
        }
    )
    first_line = f"{machine.name}, {precision} ({reason}), Keras on {machine.backend}"
    on_event(Note("; ".join([first_line, *machine.warnings])))
    return listing, machine, choose_batch_size(config, classes, images, on_event)


def _loaded_images(
    config: "Config",
    listing: "Listing",
    machine: "Machine",
    run: Run | None,
    on_event: Listener,
    dataset: "Dataset | None" = None,
) -> "tuple[Dataset, Config]":
    """Read the images, resolve what they decide, and record both in the run; a run that has them recorded is held to
    them. Raises what says before the start that disk or memory will not do."""
    from imgrec_cli.config import Standardize, resolved_yaml
    from imgrec_cli.dataset import load_dataset

    if dataset is None:
        dataset = load_dataset(config.data, config.image, config.seed, on_event, listing=listing)
    image = config.image.model_copy(update={"range": dataset.spec.range})
    if config.image.standardize == "auto":
        mean, deviation = dataset.pixel_statistics()
        image = image.model_copy(update={"standardize": Standardize(mean=mean, deviation=deviation)})
    batch_size = min(config.train.images_per_step, len(dataset.rows("train")))
    train = config.train.model_copy(update={"batch_size": batch_size})
    config = config.model_copy(update={"image": image, "train": train})
    if run is not None:
        from imgrec_cli.training.needs import check_disk, check_memory

        check_disk(config, len(dataset.class_names), run.folder, on_event)
        if machine.device == "cpu":
            check_memory(config, len(dataset.class_names), on_event)
        if "data" in run.record:
            refuse_other_images(run, _recorded(dataset))
        else:
            write_text(run.resolved_config_file, resolved_yaml(config, run.folder))
            _record_images(run, dataset)
    return dataset, config


def _fit_export_judge(config: "Config", dataset: "Dataset", run: Run, stop: "Stop", on_event: Listener) -> None:
    from dataclasses import replace

    from imgrec_cli.training import analysis
    from imgrec_cli.training.export import export, rebuilt
    from imgrec_cli.training.fit import fit
    from imgrec_cli.training.runtime import out_of_memory_errors
    from imgrec_cli.training.speed import fitting_batch_size

    analysis.write_layers(config, dataset, run)
    analysis.write_augmented(config, dataset, run)
    try:
        trained = fit(config, dataset, run, stop, on_event)
    except out_of_memory_errors() as error:
        size = config.train.images_per_step
        fitting = fitting_batch_size(config, len(dataset.class_names))
        raise TrainingError(
            f"a batch of {size} images does not fit into the memory of this device",
            f"train.batch_size={fitting} fits" if fitting else "use a smaller image.size or a smaller model",
        ) from error
    digests = {"best": trained.best_weights_sha256, "last_state": trained.last_state_sha256}
    run.update_record(best_epoch=trained.best_epoch, sha256=digests)
    shipped = rebuilt(config, dataset, trained.model)
    features = analysis.learn_familiar(config, dataset, shipped, on_event, trained.features)
    manifest = export(config, dataset, run, trained.model, shipped, on_event)
    split = "test" if len(dataset.rows("test")) else "validation"
    images = _images_of_run(run, split, manifest, on_event)  # from their files, as a user's photos will come
    evaluation = evaluate_files(Classifier.load(run.folder), images, split, on_event)
    evaluation.save(run.evaluation_folder(split))
    scores = {
        "split": split,
        "images": evaluation.summary.images,
        "accuracy": evaluation.summary.accuracy,
        "accuracy_interval": evaluation.accuracy_interval,
        "macro_f1": evaluation.summary.macro.f1,
        "fingerprint": dataset.fingerprint,
    }
    replace(manifest, scores=scores).write(run.bundle_folder)
    run.update_record(scores=scores)
    analysis.write_learning_curve(config, dataset, shipped, features, run, on_event)
    analysis.write_explanations(config, dataset, shipped, evaluation, run)
    write_card(run.bundle_folder, manifest, evaluation.as_dict(), run.record["data"]["images"])


def _machine_record(machine: "Machine") -> dict[str, object]:
    return machine_record(machine.backend, machine.name, machine.threads, machine.deterministic)


def _recorded(dataset: "Dataset") -> list[RecordedExample]:
    return [
        RecordedExample(e.split, dataset.class_names[e.label], e.path, e.file, dataset.digest(e))
        for e in dataset.examples
    ]


def _record_images(run: Run, dataset: "Dataset") -> None:

    run.write_examples(_recorded(dataset))
    if dataset.skipped:
        write_csv(run.skipped_file, ("path", "reason"), ((s.path, s.reason) for s in dataset.skipped))
    run.audit_file.parent.mkdir(exist_ok=True)
    write_json(run.audit_file, [finding.as_dict(dataset.found_names) for finding in dataset.findings])
    run.update_record(
        data={
            "fingerprint": dataset.fingerprint,
            "class_names": list(dataset.class_names),
            "images": {split: len(dataset.rows(split)) for split in ("train", "validation", "test")},
            "skipped": len(dataset.skipped),
        }
    )


def evaluate(
    model: Path | str | None = None,
    *,
    split: str = "test",
    data: Path | str | None = None,
    tta: bool = False,
    on_event: Listener = ignore,
) -> Evaluation:
    """Judge a run or bundle on a split of its run, or on a folder of class folders, and return the figures.

    Without `model` it is the newest finished run. With `tta` every image is answered by the mean over slightly changed
    copies. A run keeps the result below `evaluation/`, one with `tta` in a folder of its own. Raises DataError where
    the class folders of `data` are not the bundle's classes by name, InputError where a bundle is given without data.
    """
    classifier, run, images, name = _to_judge(model, split, data, on_event, tta=tta)
    evaluation = evaluate_files(classifier, images, name, on_event)
    if run is not None:
        evaluation.save(run.evaluation_folder(f"{name}-tta" if tta else name))
    return evaluation


def stress(
    model: Path | str | None = None,
    *,
    split: str = "test",
    data: Path | str | None = None,
    on_event: Listener = ignore,
) -> Stress:
    """Judge a run or bundle on disturbed images of what `evaluate` judges on; a run keeps the result beside that."""
    classifier, run, images, name = _to_judge(model, split, data, on_event)
    found = measure_stress(classifier, images, name, on_event)
    if run is not None:
        file = run.stress_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, found.as_dict())
    return found


def compare(
    runs: Sequence[Path | str], *, split: str = "test", figures: Sequence[str] = ()
) -> tuple[Comparison, list[list[tuple[str, str, str]]]]:
    """Compare the first of two or more judged runs, or evaluations in them, with each other one.

    `split` is the evaluation of each run that is compared, `figures` are asked for beside the usual ones. Returns the
    comparison, and for each other run what differs in its config: key, value of the first, value of this one.
    """
    judged = [read_judged(Path(run), split) for run in runs]
    comparison = compare_judged(judged, figures)
    base = judged[0].run
    return comparison, [config_differences(base, one.run) if base and one.run else [] for one in judged[1:]]


def _to_judge(
    model: Path | str | None, split: str, data: Path | str | None, on_event: Listener, *, tta: bool = False
) -> tuple[Classifier, Run | None, list[LabelledImage], str]:
    """The classifier, its run where it has one, the images, and what they are called."""
    path = Path(model) if model is not None else newest_finished_run(Path(RUNS_FOLDER))[0].folder
    classifier = Classifier.load(path, tta=tta)
    run = Run.open(path) if (path / "run.json").is_file() else None
    if data is not None:
        images = _images_below(Path(data), split, classifier.manifest, on_event)
        name = f"data-{Path(data).resolve().name}" + (f"-{split}" if split != "test" else "")
    elif run is not None:
        images = _images_of_run(run, split, classifier.manifest, on_event)
        name = split
    else:
        raise InputError(f"{path}: a bundle does not know its images", "name a folder of class folders: --data DIR")
    return classifier, run, images, name


def explain(
    images: Sequence[Path | str],
    model: Path | str | None = None,
    folder: Path | str = ".",
    *,
    class_name: str | None = None,
    on_event: Listener = ignore,
) -> list[Explanation]:
    """Draw over each image what spoke for its answer, or for `class_name`, and write the pictures into `folder`.

    By Grad-CAM for a run where TensorFlow is installed, by occlusion from the bundle elsewhere. An existing picture of
    the same name is replaced. Raises InputError where there is no such class, BadImageError for an unreadable image.
    """
    path = Path(model) if model is not None else newest_finished_run(Path(RUNS_FOLDER))[0].folder
    classifier = Classifier.load(path)
    if class_name is not None and class_name not in classifier.class_names:
        raise InputError(f"no class {class_name}", f"the classes are {', '.join(classifier.class_names[:20])}")
    cam = None
    if (path / "run.json").is_file() and find_spec("tensorflow") is not None:
        from imgrec_cli.config import Runtime
        from imgrec_cli.training import runtime

        runtime.start(Runtime())
        from imgrec_cli.training.gradcam import grad_cam_of_run

        cam = grad_cam_of_run(Run.open(path))
    return explain_files(classifier, [Path(image) for image in images], Path(folder), class_name, cam, on_event)


def export(
    run: Path | str | None,
    targets: Sequence[str],
    place: Path | str | None = None,
    *,
    max_drop: float = 0.01,
    on_event: Listener = ignore,
) -> list[Exported]:
    """Write bundles of a finished run, the newest by default, for each of `targets`, the keys of `bundle.TARGETS`.

    Each lies in `exports/<target>` of the run, or a single one at `place`, a folder or a `.zip`. A target that does not
    pass the comparison with Keras has an error in place of a bundle. Formats of reduced precision may lose `max_drop`,
    0 to 1, of the validation accuracy. Needs TensorFlow.
    """
    found = Run.open(Path(run)) if run is not None else newest_finished_run(Path(RUNS_FOLDER))[0]
    unknown = [target for target in targets if target not in TARGETS]
    if unknown or not targets:
        raise InputError(f"{', '.join(unknown) or 'nothing'}: cannot be exported to", f"one of {', '.join(TARGETS)}")
    if place is not None:
        place = Path(place)
        if len(targets) > 1:
            raise InputError("one place is named for several exports", "export them one by one, or leave the place out")
        if place.exists() and not (place / MANIFEST).is_file() and place.suffix != ".zip":
            raise InputError(f"{place}: exists and is no bundle", "name another place, or remove it")
    _start_tensorflow("exporting")
    from imgrec_cli.training.export import Trained, write_bundle

    trained = Trained.of_run(found, on_event)
    results = []
    for target in dict.fromkeys(targets):
        where = place or found.exports_folder / target
        try:
            manifest, _ = write_bundle(trained, target, found.name, where, on_event, max_drop=max_drop)
        except (ParityError, MissingExtraError) as error:
            results.append(Exported(target, where, None, error))
        else:
            results.append(Exported(target, where, manifest, None))
    return results


def compress(
    run: Path | str | None, max_bytes: int, max_drop: float, *, on_event: Listener = ignore
) -> "tuple[Search, dict[str, float]]":
    """Search for the smallest model of a finished run within a budget: `max_bytes`, and `max_drop` (0 to 1) of the
    validation accuracy.

    What meets it is written to `compressed/bundle` of the run, the frontier beside it as `frontier.json` and
    `frontier.png`. Returns the search, and the accuracies before and after on the test split, which chose nothing.
    """
    found = Run.open(Path(run)) if run is not None else newest_finished_run(Path(RUNS_FOLDER))[0]
    _start_tensorflow("compressing")
    from imgrec_cli.reporting.frontier import draw_frontier
    from imgrec_cli.training.compress import compress as search_smallest
    from imgrec_cli.training.compress import with_scores
    from imgrec_cli.training.export import Trained

    place = found.compressed_folder / "bundle"
    trained = Trained.of_run(found, on_event)
    search = search_smallest(found, trained, place, max_bytes, max_drop, on_event)
    frontier = search.frontier()
    points = [(one.name, one.bytes, one.accuracy, one in frontier) for one in search.candidates]
    chosen = search.chosen.name if search.chosen else None
    least = search.reference_accuracy - max_drop
    draw_frontier(points, chosen, max_bytes, least, place.with_name("frontier.png"))
    scores: dict[str, float] = {}
    if search.chosen is not None and len(trained.dataset.rows("test")):
        images = _images_of_run(found, "test", Manifest.read(place), on_event)
        evaluation = evaluate_files(Classifier.load(place), images, "test", on_event)
        scores = {"before": found.record["scores"]["accuracy"], "after": evaluation.summary.accuracy}
        told = {"split": "test", "images": evaluation.summary.images, "accuracy": scores["after"]}
        with_scores(place, {**told, "macro_f1": evaluation.summary.macro.f1})
    return search, scores


def _start_tensorflow(what: str) -> None:
    """Start TensorFlow on the CPU, whatever the run was trained on: its exporters are the ones that are used."""
    if find_spec("tensorflow") is None:
        raise MissingExtraError(f"{what} needs tensorflow, which is not installed", install_command("train"))
    from imgrec_cli.config import Runtime
    from imgrec_cli.training import runtime

    runtime.start(Runtime(device="cpu", backend="tensorflow"))


def report(run: Path | str | None = None, file: Path | str | None = None, *, images: bool = True) -> Path:
    """Write the page of a finished run, the newest by default, and return its path: `report.html` in the run.

    Without `images` it holds no picture. Raises InputError where the run was not judged yet.
    """
    found = Run.open(Path(run)) if run is not None else newest_finished_run(Path(RUNS_FOLDER))[0]
    if "search" in found.record:
        raise InputError(f"{found.folder}: a search writes its page itself", "imgrec tune --study goes on with it")
    if "repeats" in found.record:
        return write_repeats_report(found, None if file is None else Path(file))
    return write_report(found, file=None if file is None else Path(file), images=images)


def _images_of_run(run: Run, split: str, manifest: Manifest, on_event: Listener) -> list[LabelledImage]:
    """The recorded images of a split; a warning where their files are not what they were when the run began."""
    from imgrec_cli.dataset.digests import digest_of_file

    index = {name: label for label, name in enumerate(manifest.class_names)}
    examples = run.read_examples(split)
    if not examples:
        raise DataError(
            f"{run.folder}: this run has no {split} images",
            "choose another split with --split, or a folder with --data DIR",
        )
    changed = [example.path for example in examples if digest_of_file(example.file) not in ("", example.digest)]
    if changed:
        on_event(Warn(f"{len(changed)} of {len(examples)} images changed since the run began, such as {changed[0]}"))
    return [LabelledImage(example.path, Path(example.file), index[example.label]) for example in examples]


def _images_below(folder: Path, split: str, manifest: Manifest, on_event: Listener) -> list[LabelledImage]:
    from imgrec_cli.dataset.scan import scan_labelled

    found = scan_labelled(folder, split)
    found, passed_over = manifest.as_classes(found)
    if passed_over:
        on_event(Note(f"left out, as in training: {', '.join(passed_over)}"))
    missing = [name for name in manifest.class_names if name not in found]
    extra = [name for name in found if name not in manifest.class_names]
    if missing or extra:
        lines = [f"{folder}: its class folders are not the {len(manifest.class_names)} classes of {manifest.name}"]
        lines += [f"  missing: {', '.join(missing)}"] if missing else []
        lines += [f"  not in the model: {', '.join(extra)}"] if extra else []
        raise DataError("\n".join(lines), "rename or remove folders; an empty folder stands for a class without images")
    return [
        LabelledImage(path, file, label)
        for label, name in enumerate(manifest.class_names)
        for path, file in found[name]
    ]
