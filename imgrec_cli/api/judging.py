"""The verbs that judge what was trained: evaluate, stress, compare, explain, report."""

import hashlib
import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from imgrec_cli.atomic import write_json
from imgrec_cli.bundle import Manifest
from imgrec_cli.classifier import Classifier, Unreadable
from imgrec_cli.comparison import Comparison
from imgrec_cli.comparison import compare as compare_judged
from imgrec_cli.errors import DataError, InputError
from imgrec_cli.evaluation import Evaluation, LabelledImage, evaluate_files
from imgrec_cli.explanation import Explanation, explain_files
from imgrec_cli.judged import read_judged
from imgrec_cli.origin import config_differences
from imgrec_cli.progress import Listener, Note, Warn, ignore
from imgrec_cli.reporting import write_repeats_report, write_report
from imgrec_cli.rundir import RUNS_FOLDER, Run, newest_finished_run
from imgrec_cli.storage import located
from imgrec_cli.stress import Stress
from imgrec_cli.stress import stress as measure_stress


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


def explain(
    images: Sequence[Path | str],
    model: Path | str | None = None,
    folder: Path | str = ".",
    *,
    class_name: str | None = None,
    on_event: Listener = ignore,
) -> list[Explanation | Unreadable]:
    """Draw over each image what spoke for its answer, or for `class_name`, and write the pictures into `folder`.

    By Grad-CAM for a run where TensorFlow is installed, by occlusion from the bundle elsewhere. An existing picture of
    the same name is replaced. An image that cannot be read has its reason in place. Raises InputError where there is no
    such class.
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
    if "search" in found.record:
        raise InputError(f"{found.folder}: a search writes its page itself", "imgrec tune --study goes on with it")
    if "repeats" in found.record:
        return write_repeats_report(found, None if file is None else Path(file))
    return write_report(found, file=None if file is None else Path(file), images=images)


def _to_judge(
    model: Path | str | None, split: str, data: Path | str | None, on_event: Listener, *, tta: bool = False
) -> tuple[Classifier, Run | None, list[LabelledImage], str]:
    """The classifier, its run where it has one, the images, and what they are called."""
    path = Path(model) if model is not None else newest_finished_run(Path(RUNS_FOLDER))[0].folder
    classifier = Classifier.load(path, tta=tta)
    run = Run.open(path) if (path / "run.json").is_file() else None
    if data is not None:
        images = _images_below(Path(data), split, classifier.manifest, on_event)
        name = _name_of_folder(run, Path(data).resolve(), split)
    elif run is not None:
        images = images_of_run(run, split, classifier.manifest, on_event)
        name = split
    else:
        raise InputError(f"{path}: a bundle does not know its images", "name a folder of class folders: --data DIR")
    return classifier, run, images, name


def _name_of_folder(run: Run | None, folder: Path, split: str) -> str:
    """What the evaluation of a folder is called: by its name, and by its path too where the run has the evaluation of
    another folder of that name."""
    name = f"data-{folder.name}" + (f"-{split}" if split != "test" else "")
    if run is None:
        return name
    digest = hashlib.blake2b(os.fsencode(folder), digest_size=4).hexdigest()
    file = run.judged_folders_file
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if known.get(name, digest) != digest:
        return f"{name}-{digest}"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**known, name: digest})
    return name


def images_of_run(run: Run, split: str, manifest: Manifest, on_event: Listener) -> list[LabelledImage]:
    """The recorded images of a split; a warning where their files are not what they were when the run began."""
    from imgrec_cli.dataset.digests import digests_of_files

    index = {name: label for label, name in enumerate(manifest.class_names)}
    examples = run.read_examples(split)
    if not examples:
        raise DataError(
            f"{run.folder}: this run has no {split} images",
            "choose another split with --split, or a folder with --data DIR",
        )
    digests = digests_of_files([example.file for example in examples])
    changed = [
        example.path for example, digest in zip(examples, digests, strict=True) if digest not in ("", example.digest)
    ]
    if changed:
        on_event(Warn(f"{len(changed)} of {len(examples)} images changed since the run began, such as {changed[0]}"))
    return [LabelledImage(example.path, located(example.file), index[example.label]) for example in examples]


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
