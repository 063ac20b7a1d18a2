"""The verbs: train: Config → Run, reproduce: Run → Run, evaluate: Bundle × images → Evaluation, bench: Config → speeds.
Each calls the parts in order."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.bundle import MANIFEST, TARGETS, Manifest
from imgrec_cli.classifier import Classifier
from imgrec_cli.errors import (
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
    command,
    compared,
    differences,
    git_record,
    machine_record,
    refuse_another_config,
    refuse_other_images,
    without_home,
)
from imgrec_cli.progress import Listener, Note, Warn, ignore
from imgrec_cli.reporting import write_card, write_report
from imgrec_cli.rundir import (
    RUNS_FOLDER,
    RecordedExample,
    Run,
    full_disk_said,
    newest_finished_run,
    write_json,
    write_text,
)
from imgrec_cli.stress import Stress
from imgrec_cli.stress import stress as measure_stress

if TYPE_CHECKING:
    from imgrec_cli.config import Config
    from imgrec_cli.dataset import Dataset, Listing
    from imgrec_cli.dataset.issues import LabelIssues
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
    tensorboard: bool = False,
    mlflow: bool = False,
    on_event: Listener = ignore,
) -> Run:
    """Train a classifier, ship it, judge it, and return the finished run, a new folder below `runs`.

    `config` is a configuration or the path of its YAML file, `overrides` are `key=value` texts for a file. With
    `resume` the unfinished run in that folder goes on from its last checkpoint instead, to the same bits as if it had
    never stopped; a config is then needed for nothing, and refused where it differs in more than a larger
    `train.epochs`. With `tensorboard` the run also gets a folder of that name with every epoch's figures; with
    `mlflow` config, figures, scores and bundle also go to MLflow, to where its environment variables say. The first
    SIGINT or SIGTERM saves all state and raises Interrupted. Raises the kinds of imgrec_cli.errors; a run that began is
    then marked and kept.
    """
    if tensorboard:
        from imgrec_cli.training.tensorboard import require_tensorboard

        require_tensorboard()
    if mlflow:
        from imgrec_cli.tracking.mlflow import require_mlflow

        require_mlflow()
    logs = Logs(tensorboard=tensorboard, mlflow=mlflow)
    with _stoppable() as stop:
        if resume is not None:
            return _resumed(Run.open(Path(resume)), config, overrides, stop, on_event, logs)
        if config is None:
            raise InputError("no config is given", "name a YAML file, or a run to go on with: --resume RUN")
        given, path = _loaded(config, overrides)
        name = path.stem if path else "config"
        return _begun(given, path, overrides, runs, name, stop, on_event, logs)


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
    runs: Path,
    name: str,
    stop: "Stop",
    on_event: Listener,
    logs: Logs = NO_LOGS,
) -> Run:
    from imgrec_cli.config import resolved_yaml

    started = time.time()
    listing, machine, config = _started(config, on_event)
    run = Run.create(runs, name)
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
        second = _begun(config, None, (), runs, f"again-{first.name}", stop, on_event)
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


def _started(config: "Config", on_event: Listener) -> "tuple[Listing, Machine, Config]":
    """List the images, start the backend, and resolve every `auto` that the machine decides; the first thing said is
    device and precision."""
    from imgrec_cli.config import BackboneModel, check_class_names, check_weights
    from imgrec_cli.dataset import scan
    from imgrec_cli.training import runtime

    listing = scan(config.data)
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
    config: "Config", listing: "Listing", machine: "Machine", run: Run | None, on_event: Listener
) -> "tuple[Dataset, Config]":
    """Read the images, resolve what they decide, and record both in the run; a run that has them recorded is held to
    them. Raises what says before the start that disk or memory will not do."""
    from imgrec_cli.config import Standardize, resolved_yaml
    from imgrec_cli.dataset import load_dataset

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
    features = analysis.learn_familiar(config, dataset, shipped, on_event)
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
    from imgrec_cli.rundir import write_csv

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
