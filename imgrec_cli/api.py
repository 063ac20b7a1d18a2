"""The verbs: train: Config → Run, evaluate: Bundle × images → Evaluation, bench: Config → speeds. Each calls the parts
in order."""

import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli import __version__
from imgrec_cli.bundle import Manifest
from imgrec_cli.classifier import Classifier
from imgrec_cli.errors import DataError, ImgrecError, InputError, MissingExtraError, install_command
from imgrec_cli.evaluation import Evaluation, LabelledImage, evaluate_files
from imgrec_cli.explanation import Explanation, explain_files
from imgrec_cli.progress import Listener, Note, Warn, ignore
from imgrec_cli.reporting import write_card, write_report
from imgrec_cli.rundir import RUNS_FOLDER, RecordedExample, Run, newest_finished_run, write_json, write_text
from imgrec_cli.stress import Stress
from imgrec_cli.stress import stress as measure_stress

if TYPE_CHECKING:
    from imgrec_cli.config import Config
    from imgrec_cli.dataset import Dataset
    from imgrec_cli.training.runtime import Machine
    from imgrec_cli.training.speed import Speeds


def train(
    config: "Config | Path | str",
    overrides: Sequence[str] = (),
    *,
    runs: Path = Path(RUNS_FOLDER),
    tensorboard: bool = False,
    on_event: Listener = ignore,
) -> Run:
    """Train a classifier, ship it, judge it, and return the finished run, a new folder below `runs`.

    `config` is a configuration or the path of its YAML file, `overrides` are `key=value` texts for a file. With
    `tensorboard` the run also gets a folder of that name with every epoch's figures. Raises the kinds of
    imgrec_cli.errors; a run that began is then marked failed and kept.
    """
    from imgrec_cli.config import Config, load_config, resolved_yaml

    if isinstance(config, Config):
        if overrides:
            raise InputError("overrides belong to a config file", "give them to load_config, or give the file's path")
        name, written = "config", ""
    else:
        path = Path(config)
        config = load_config(path, overrides)
        name, written = path.stem, path.read_text(encoding="utf-8-sig")
    if find_spec("tensorflow") is None:  # whatever the backend: the export needs it
        raise MissingExtraError("training needs tensorflow, which is not installed", install_command("train"))
    if tensorboard:
        from imgrec_cli.training.tensorboard import require_tensorboard

        require_tensorboard()
    started = time.time()
    machine, dataset, resolved = _prepare(config, on_event)
    run = Run.create(runs, name)
    with run.held():
        run.update_record(
            name=run.name,
            status="running",
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            overrides=list(overrides),
            seed=config.seed,
            device=machine.name,
            backend=machine.backend,
            precision=resolved.train.precision,
            threads=machine.threads,
            versions=_versions(machine.backend),
            data={
                "fingerprint": dataset.fingerprint,
                "class_names": list(dataset.class_names),
                "images": {split: len(dataset.rows(split)) for split in ("train", "validation", "test")},
                "skipped": len(dataset.skipped),
            },
        )
        on_event(Note(f"run {run.folder}"))
        try:
            if written:
                write_text(run.config_file, written)
            write_text(run.resolved_config_file, resolved_yaml(resolved, run.folder))
            _record_examples(run, dataset)
            if tensorboard:
                from imgrec_cli.training.tensorboard import with_scalars

                on_event = with_scalars(run.tensorboard_folder, on_event)
            _fit_export_judge(resolved, dataset, run, on_event)
        except BaseException as error:
            reason = error.message if isinstance(error, ImgrecError) else type(error).__name__
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            with suppress(ImgrecError, OSError):  # such as on a full disk: the first error is the one to tell
                run.update_record(status=status, error=reason, seconds=round(time.time() - started, 1))
            raise
        run.update_record(status="finished", seconds=round(time.time() - started, 1))
        write_report(run)
    return run


def bench(config: Path | str, overrides: Sequence[str] = (), *, on_event: Listener = ignore) -> "tuple[Speeds, int]":
    """How fast a config trains on this machine, part by part, and the peak memory of measuring it in bytes."""
    from imgrec_cli.config import load_config
    from imgrec_cli.machine import peak_memory_bytes

    _, dataset, resolved = _prepare(load_config(Path(config), overrides), on_event)
    from imgrec_cli.training.speed import measure

    return measure(resolved, dataset), peak_memory_bytes()


def _prepare(config: "Config", on_event: Listener) -> "tuple[Machine, Dataset, Config]":
    """Start the backend, read the images, and resolve every `auto`; the first thing said is device and precision."""
    from imgrec_cli.config import check_decision, check_weights
    from imgrec_cli.dataset import load_dataset, scan
    from imgrec_cli.training import runtime

    listing = scan(config.data)
    check_weights(config)
    check_decision(config, listing.class_names)
    machine = runtime.start(config.runtime)
    from imgrec_cli.training.speed import choose_precision

    images = sum(example.split == "train" for example in listing.examples)
    precision, reason = choose_precision(config, len(listing.class_names), images, machine)
    first_line = f"{machine.name}, {precision} ({reason}), Keras on {machine.backend}"
    on_event(Note("; ".join([first_line, *machine.warnings])))
    dataset = load_dataset(config.data, config.image, config.seed, on_event, listing=listing)
    return machine, dataset, _resolved(config, dataset, machine, precision)


def _fit_export_judge(config: "Config", dataset: "Dataset", run: Run, on_event: Listener) -> None:
    from dataclasses import replace

    from imgrec_cli.training import analysis
    from imgrec_cli.training.export import export, rebuilt
    from imgrec_cli.training.fit import fit

    analysis.write_layers(config, dataset, run)
    analysis.write_augmented(config, dataset, run)
    model, best_epoch = fit(config, dataset, run, on_event)
    run.update_record(best_epoch=best_epoch)
    shipped = rebuilt(config, dataset, model)
    features = analysis.learn_familiar(config, dataset, shipped, on_event)
    manifest = export(config, dataset, run, model, shipped, on_event)
    split = "test" if len(dataset.rows("test")) else "validation"
    images = [
        LabelledImage(example.path, Path(example.file), example.label)
        for example in dataset.examples
        if example.split == split
    ]
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


def _resolved(config: "Config", dataset: "Dataset", machine: "Machine", precision: str) -> "Config":
    """The config with every `auto` replaced by what was chosen."""
    from imgrec_cli.config import Standardize

    image = config.image.model_copy(update={"range": dataset.spec.range})
    if config.image.standardize == "auto":
        mean, deviation = dataset.pixel_statistics()
        image = image.model_copy(update={"standardize": Standardize(mean=mean, deviation=deviation)})
    batch_size = min(config.train.batch_size, len(dataset.rows("train")))
    return config.model_copy(
        update={
            "image": image,
            "train": config.train.model_copy(update={"batch_size": batch_size, "precision": precision}),
            "runtime": config.runtime.model_copy(
                update={"device": machine.device, "threads": machine.threads, "backend": machine.backend}
            ),
        }
    )


def _versions(backend: str) -> dict[str, str]:
    from importlib.metadata import version

    packages = ("keras", "jax" if backend == "jax" else "tensorflow", "numpy", "pillow", "ai-edge-litert")
    found = {"imgrec": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in packages:
        try:
            found[package] = version(package)
        except ImportError:  # TensorFlow for CPUs is a distribution of another name
            found[package] = version(f"{package}-cpu")
    return found


def _record_examples(run: Run, dataset: "Dataset") -> None:
    from imgrec_cli.rundir import write_csv

    run.write_examples(
        RecordedExample(e.split, dataset.class_names[e.label], e.path, e.file, dataset.digest(e))
        for e in dataset.examples
    )
    if dataset.skipped:
        write_csv(run.skipped_file, ("path", "reason"), ((s.path, s.reason) for s in dataset.skipped))


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
        images = _images_below(Path(data), split, classifier.manifest)
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


def _images_below(folder: Path, split: str, manifest: Manifest) -> list[LabelledImage]:
    from imgrec_cli.dataset.scan import scan_labelled

    found = scan_labelled(folder, split)
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
