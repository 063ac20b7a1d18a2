"""One run: begun or gone on with, fitted, exported and judged, and how it ended.

Of several processes that train together, the one that leads their `job` does all of this; the others fit beside it.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.api.judging import images_of_run
from imgrec_cli.api.preparing import loaded_config, loaded_images, set_up
from imgrec_cli.atomic import full_disk_said, write_text
from imgrec_cli.classifier import Classifier
from imgrec_cli.errors import (
    ImgrecError,
    InputError,
    Interrupted,
    ParityError,
    TrainingError,
    require_tensorflow,
)
from imgrec_cli.evaluation import evaluate_files
from imgrec_cli.origin import (
    check_earlier_runs,
    command,
    differences,
    git_record,
    machine_record,
    refuse_another_config,
    without_home,
)
from imgrec_cli.progress import Listener, Note, Warn
from imgrec_cli.reporting import write_card, write_report
from imgrec_cli.rundir import Run

if TYPE_CHECKING:
    from imgrec_cli.config import Config
    from imgrec_cli.dataset import Dataset, Listing
    from imgrec_cli.training.job import Job
    from imgrec_cli.training.runtime import Machine
    from imgrec_cli.training.stop import Stop


@dataclass(frozen=True, slots=True)
class Logs:
    """Where the figures of a run go beside its folder."""

    tensorboard: bool = False
    mlflow: bool = False


NO_LOGS = Logs()


class _VanishedError(InputError):
    """The folder of a run that had begun is not there."""


@contextmanager
def stoppable() -> "Iterator[Stop]":
    """A block that trains: a signal ends it with Interrupted, a second SIGINT with KeyboardInterrupt."""
    from imgrec_cli.training.stop import stopping

    require_tensorflow("training")  # whatever the backend: the export does
    with stopping() as stop:
        try:
            yield stop
        except KeyboardInterrupt:
            if stop.at_once or not stop.is_asked:
                raise
            raise stop.error() from None


def begun(
    config: "Config",
    path: Path | None,
    overrides: Sequence[str],
    create: Callable[[], Run],
    stop: "Stop",
    on_event: Listener,
    logs: Logs = NO_LOGS,
    job: "Job | None" = None,
) -> Run:
    """A run of one training, in the folder that `create` makes; `path` is the config's file, where it has one."""
    from imgrec_cli.training.job import Job

    started, job = time.time(), job or Job()
    listing, machine, config = set_up(config, on_event, job=job)
    check_earlier_runs(config, listing.class_names)
    if not job.leads:
        return _followed(config, listing, machine, stop, on_event, job)
    run = create()
    with run.held():
        try:
            facts = {"precision": config.train.precision, **machine_facts(machine)}
            record_begin(run, config, path, overrides, started, facts)
            stop.run = run.folder
            on_event(Note(f"run {run.folder}"))
            job.said_by_leader(str(run.folder.absolute()))
            with outcome_recorded(run, config, started):
                _worked(config, listing, machine, run, stop, on_event, logs, job)
            write_report(run)
        except _VanishedError:
            raise  # its disk may be back by now, with all that had begun
        except InputError:
            if not run.examples_file.exists():  # such as images that cannot be trained on: nothing has begun
                shutil.rmtree(run.folder, ignore_errors=True)
            raise
    return run


def record_begin(
    run: Run,
    config: "Config",
    path: Path | None,
    overrides: Sequence[str],
    started: float,
    facts: Mapping[str, object],
    options: Sequence[str] = (),
) -> None:
    """Write how a run begins: its config as written and as resolved, when (seconds since 1970), by which command, and
    what else `facts` say."""
    from imgrec_cli.config import resolved_yaml

    if path:
        write_text(run.config_file, path.read_text(encoding="utf-8-sig"))
    write_text(run.resolved_config_file, resolved_yaml(config, run.folder))
    run.update_record(
        name=run.name,
        status="running",
        started=utc(started),
        command=command(path, overrides, options) if path else None,
        git=git_record(path),
        overrides=[without_home(setting) for setting in overrides],
        seed=config.seed,
        **facts,
    )


def utc(seconds: float) -> str:
    """A time as `run.json` writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def resumed(
    run: Run,
    given: "Config | Path | str | None",
    overrides: Sequence[str],
    stop: "Stop",
    on_event: Listener,
    logs: Logs = NO_LOGS,
    job: "Job | None" = None,
) -> Run:
    """The run of one training, gone on with from its last checkpoint; `given` is a config that it is held to."""
    from imgrec_cli.config import load_config, resolved_yaml
    from imgrec_cli.training.job import Job

    started, job = time.time(), job or Job()
    with run.held() if job.leads else nullcontext():
        record = run.record
        stored = load_config(run.resolved_config_file)
        config, _ = loaded_config(run.resolved_config_file if given is None else given, overrides)
        images = record["data"]["images"]["train"] if "data" in record else None
        refuse_another_config(run, stored, config, images)
        epochs = config.train.epochs
        changed = {"train": stored.train.model_copy(update={"epochs": epochs}), "distribute": config.distribute}
        config = stored.model_copy(update=changed)
        if record["status"] == "finished" and epochs == stored.train.epochs:
            if not job.leads:
                return run
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
        listing, machine, config = set_up(config, on_event, job=job)
        if not job.leads:
            return _followed(config, listing, machine, stop, on_event, job)
        here = machine_facts(machine)
        differing = differences(record, here)
        if differing:
            on_event(Warn(f"the run continues, not bit-exact: {'; '.join(differing)}"))
        write_text(run.resolved_config_file, resolved_yaml(config, run.folder))
        history = [
            *record.get("resumed", ()),
            {"command": command(None, overrides, ["--resume", str(run.folder)]), "differing": differing},
        ]
        changes = {"status": "running", "resumed": history, "error": None, **here}
        if epochs > stored.train.epochs:
            extended = {"from_epochs": stored.train.epochs, "to_epochs": epochs}
            changes["extended"] = [*record.get("extended", ()), extended]
        run.update_record(**changes)
        job.said_by_leader(str(run.folder.absolute()))
        with outcome_recorded(run, config, started, record.get("seconds", 0.0)):
            _worked(config, listing, machine, run, stop, on_event, logs, job)
        write_report(run)
    return run


def _followed(
    config: "Config", listing: "Listing", machine: "Machine", stop: "Stop", on_event: Listener, job: "Job"
) -> Run:
    """Train beside the process that leads, and write nothing but parts of a state that is too large for one."""
    from imgrec_cli.training.fit import fit

    run = Run(Path(job.said_by_leader()))
    stop.run = run.folder
    if not run.folder.is_dir():
        raise InputError(
            f"{run.folder}: not there on process {job.index}, and process 0 keeps the run in it",
            "start all processes in a folder that every host sees, at the same path",
        )
    dataset, config = loaded_images(config, listing, machine, None, on_event, job=job)
    fit(config, dataset, run, stop, on_event, job)
    job.leave()
    return run


def _worked(
    config: "Config",
    listing: "Listing",
    machine: "Machine",
    run: Run,
    stop: "Stop",
    on_event: Listener,
    logs: Logs,
    job: "Job",
) -> None:
    """Load, fit, export and judge, with the logs that were asked for."""
    dataset, config = loaded_images(config, listing, machine, run, on_event, job=job)
    if logs.tensorboard:
        from imgrec_cli.training.tensorboard import with_scalars

        on_event = with_scalars(run.tensorboard_folder, on_event)
    if not logs.mlflow:
        _fit_export_judge(config, dataset, run, stop, on_event, job)
        return
    from imgrec_cli.tracking.mlflow import tracked

    with tracked(run, config.model_dump(mode="json"), on_event) as listen:
        _fit_export_judge(config, dataset, run, stop, listen, job)


def _fit_export_judge(
    config: "Config", dataset: "Dataset", run: Run, stop: "Stop", on_event: Listener, job: "Job"
) -> None:
    from dataclasses import replace

    from imgrec_cli.training import analysis
    from imgrec_cli.training.export import export, rebuilt
    from imgrec_cli.training.fit import fit
    from imgrec_cli.training.runtime import out_of_memory_errors
    from imgrec_cli.training.speed import fitting_batch_size

    analysis.write_layers(config, dataset, run)
    analysis.write_augmented(config, dataset, run)
    try:
        trained = fit(config, dataset, run, stop, on_event, job)
        job.leave()
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
    manifest = export(config, dataset, run, trained.model, shipped, on_event, trained.features)
    split = "test" if len(dataset.rows("test")) else "validation"
    images = images_of_run(run, split, manifest, on_event)  # from their files, as a user's photos will come
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


@contextmanager
def outcome_recorded(run: Run, config: "Config", started: float, seconds_before: float = 0.0) -> Iterator[None]:
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
            raise _VanishedError(
                f"{run.folder}: this folder vanished while the run was writing to it",
                "put it back as it was, such as by mounting its disk, then go on with imgrec train --resume",
            ) from error
        raise
    run.update_record(status="finished", error=None, resumable=False, seconds=seconds())
    _drop_what_only_training_needs(run, config)


def _drop_what_only_training_needs(run: Run, config: "Config") -> None:
    if not config.train.keep_optimizer:
        run.drop_checkpoints()


def machine_facts(machine: "Machine") -> dict[str, object]:
    return machine_record(machine.backend, machine.name, machine.threads, machine.deterministic)
