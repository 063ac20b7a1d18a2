"""The manifest of a shipped model: read, written and verified with the standard library alone.

A bundle is a folder, or the same files in one zip: `manifest.json`, the exported model, `selftest.npz`. It holds no
code and no pixel of the user's.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, TypeVar

from imgrec_cli.atomic import replacing, write_json
from imgrec_cli.errors import InputError
from imgrec_cli.imaging import PixelSpec
from imgrec_cli.rundir import Run

Content = bytes  # an alias: inside FileRecord the name `bytes` is its field

Item = TypeVar("Item")

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.tflite"
SELFTEST = "selftest.npz"
# a probability may differ from the reference by less than this
LARGEST_GAP = 1e-3
# Of unfamiliarity, in deviations of the training images. It subtracts nearly equal numbers, so float32 keeps fewer of
# its digits; a fiftieth of a deviation moves no image that anybody would call unfamiliar.
LARGEST_UNFAMILIARITY_GAP = 0.02
# the same limit for reduced precision: other processors round differently
LARGEST_ROUNDING_GAP = 0.05
MAX_MANIFEST_BYTES = 10_000_000  # 100,000 classes with long names fit
MAX_SIDE = 4096  # of an image, as in the config
COPY_AGAIN = "copy the bundle again, or train again"  # the hint for a damaged one


@dataclass(frozen=True, slots=True)
class Target:
    """What a model can be exported to: its file in the bundle, the runtime that answers from it, whether it answers as
    the trained model does up to rounding or in reduced precision, and the step of its probabilities where they are
    8-bit numbers."""

    model: str
    runtime: Literal["litert", "onnx", "tensorflow", "keras"]
    exact: bool
    step: float | None = None


TARGETS = {
    "litert": Target(MODEL, "litert", exact=True),
    "litert-float16": Target(MODEL, "litert", exact=False),
    "litert-dynamic": Target(MODEL, "litert", exact=False),
    "litert-int8": Target(MODEL, "litert", exact=False, step=1 / 256),
    "onnx": Target("model.onnx", "onnx", exact=True),
    "saved_model": Target("saved_model", "tensorflow", exact=True),
    "keras": Target("model.keras", "keras", exact=True),
    "tflite-micro": Target(MODEL, "litert", exact=False, step=1 / 256),
}


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file of the bundle."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        with path.open("rb") as stream:
            return cls(path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())

    @classmethod
    def of_content(cls, content: Content) -> "FileRecord":
        return cls(len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True, slots=True)
class Parity:
    """How the exported model's answers compare with those of the trained weights in Keras at float32.

    Measured on the `images` of the validation split. `largest_gap` is the largest difference of a probability,
    `unfamiliarity_gap` that of unfamiliarity (relative above 1; None where there is none or where it is not judged),
    `disagreements` the number of labels that differ, and `precision_changes` the number that differ between training's
    own precision and float32. `accuracy` is that of the exported model, `reference_accuracy` that of the weights in
    Keras, `milliseconds` the time of one image on the machine that exported.
    """

    images: int
    largest_gap: float
    disagreements: int
    precision_changes: int
    accuracy: float | None = None
    reference_accuracy: float | None = None
    milliseconds: float | None = None
    unfamiliarity_gap: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """How probabilities become answers; everything in it was found on validation images.

    The model's probabilities are read at `temperature`. `thresholds` are of single classes, by name
    (`metrics.decisions.decide`). `conformal` are the probabilities a class needs to be in the set that holds the true
    one in 50 % to 99 % of cases (`metrics.calibration.COVERAGES`), empty where they are not known.
    """

    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    conformal: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    Input of the model: uint8 [N, height, width, channels], 0 to 255, N free. Output: float32 [N, classes],
    probabilities in the order of `class_names`, before the temperature of `decision`; and, where `unfamiliar_above` is
    given, a second one: float32 [N], how little an image looks like the training images. `unfamiliar_above` keeps 95 %
    of the validation images below it. `titles` are what classes are called before people, `other` the classes answered
    as "none of these". `merged` are the names of folders that became a class of another name in training, `left_out`
    those that were not used: folders to judge on are read alike. `mirrored` says whether training mirrored images left
    to right. `target` is the key of `TARGETS` that the model was exported to; the input of `tflite-micro` is int8
    [1, height, width, channels], pixels minus 128, its output int8 [1, classes].
    """

    name: str
    created: str
    class_names: list[str]
    pixels: PixelSpec
    files: dict[str, FileRecord]
    parity: Parity
    versions: dict[str, str]
    scores: dict[str, Any] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)
    merged: dict[str, list[str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    decision: Decision = field(default_factory=Decision)
    unfamiliar_above: float | None = None
    mirrored: bool = False
    target: str = "litert"
    format: int = FORMAT_VERSION

    def _check_types(self) -> None:
        """Raise ValueError where JSON of the right shape holds what a bundle cannot, such as endless sizes."""
        names = self.class_names
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError("class_names is not a list of names")
        if len(set(names)) != len(names):
            raise ValueError("class_names holds a name twice")
        if not all(1 <= side <= MAX_SIDE for side in self.pixels.size):
            raise ValueError(f"pixels.size is not within 1 to {MAX_SIDE}")
        if not all(isinstance(r.bytes, int) and isinstance(r.sha256, str) for r in self.files.values()):
            raise ValueError("files holds sizes or hashes that are none")
        if self.target not in TARGETS:
            raise ValueError(f"target is {self.target!r}, unknown to this imgrec")
        decision, above = self.decision, self.unfamiliar_above
        if not (_is_number(decision.temperature) and decision.temperature > 0):
            raise ValueError(f"decision.temperature is {decision.temperature!r}, not a number above 0")
        thresholds = decision.thresholds
        if not isinstance(thresholds, dict) or not all(n in names and _is_number(v) for n, v in thresholds.items()):
            raise ValueError("decision.thresholds is not one of class names with numbers")
        if not isinstance(decision.conformal, list) or not all(map(_is_number, decision.conformal)):
            raise ValueError("decision.conformal is not a list of numbers")
        if above is not None and not _is_number(above):
            raise ValueError(f"unfamiliar_above is {above!r}, not a number")
        if not isinstance(self.titles, dict) or not _are_texts([*self.titles, *self.titles.values()]):
            raise ValueError("titles is not one of names with names")
        if not isinstance(self.merged, dict) or not all(map(_are_texts, self.merged.values())):
            raise ValueError("merged is not one of names with lists of names")
        for key, texts in (("other", self.other), ("left_out", self.left_out)):
            if not _are_texts(texts):
                raise ValueError(f"{key} is not a list of names")
        if SELFTEST not in self.files or not self.model_bytes:
            raise ValueError(f"files lacks {self.model} or {SELFTEST}")

    def title(self, name: str) -> str:
        """A class as people read it."""
        return self.titles.get(name, name)

    def as_classes(self, images: dict[str, list[Item]]) -> tuple[dict[str, list[Item]], list[str]]:
        """Images by the name of their folder → by class, and the names that are left out as in training."""
        target = {member: name for name, members in self.merged.items() for member in members}
        classes: dict[str, list[Item]] = {}
        passed_over = []
        for name, inside in images.items():
            if name in self.left_out:
                passed_over.append(name)
            else:
                classes.setdefault(target.get(name, name), []).extend(inside)
        return classes, passed_over

    @property
    def model_bytes(self) -> int:
        """Size of the model, without what lies beside it."""
        return sum(r.bytes for name, r in self.files.items() if name.split("/")[0] == self.model)

    @property
    def model(self) -> str:
        """Name of the model's file, or folder, in the bundle."""
        return TARGETS[self.target].model

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into the bundle's folder, atomically."""
        write_json(folder / MANIFEST, asdict(self))

    @classmethod
    def read(cls, bundle: Path) -> "Manifest":
        """The manifest of a bundle. Raises InputError where it is missing, of another format, or damaged."""
        path = bundle / MANIFEST
        try:
            values = json.loads(read_file(bundle, MANIFEST, MAX_MANIFEST_BYTES))
            if values["format"] != FORMAT_VERSION:
                raise InputError(
                    f"{path}: bundle format {values['format']}, this imgrec reads format {FORMAT_VERSION}",
                    "upgrade imgrec, or train again with this one",
                )
            values["pixels"] = PixelSpec.from_dict(values["pixels"])
            values["files"] = {name: FileRecord(**record) for name, record in values["files"].items()}
            values["parity"] = Parity(**values["parity"])
            values["decision"] = Decision(**values.get("decision", {}))
            manifest = cls(**values)
            manifest._check_types()
            return manifest
        except FileNotFoundError as error:
            raise InputError(f"{bundle}: not a bundle, it has no {MANIFEST}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: damaged: {error!r}", COPY_AGAIN) from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def find_bundle(path: Path) -> Path:
    """The bundle that `path` names: a bundle's folder or zip, or a run's folder.

    Raises InputError where there is none.
    """
    if (path / MANIFEST).is_file() or (path.suffix == ".zip" and path.is_file()):
        return path
    if (path / "run.json").is_file():
        run = Run.open(path)
        if (run.bundle_folder / MANIFEST).is_file():
            return run.bundle_folder
        if search := run.record.get("search"):
            best = search.get("best")
            hint = f"name the best: {path / 'trials' / str(best)}" if best is not None else "let it end first"
            raise InputError(f"{path}: this is a search, its trials are the models", hint)
        if repeats := run.record.get("repeats"):
            kind, number = repeats["kind"], repeats["number"]
            raise InputError(
                f"{path}: these are {number} trainings, each with a model of its own",
                f"name one of them, such as {run.part(kind, 1).folder}; a model to ship is trained without --{kind}",
            )
        raise InputError(f"{path}: this run has no bundle; its status is {run.record.get('status')}")
    if not path.exists():
        raise InputError(f"{path}: no such run or bundle", "imgrec runs lists the runs here")
    if path.suffix in (".keras", ".h5", ".hdf5", ".pb", ".pt", ".pkl"):
        raise InputError(
            f"{path}: such a file can carry code and is never loaded to predict",
            "name a bundle: imgrec train writes one, runs/RUN/bundle",
        )
    raise InputError(
        f"{path}: neither a run nor a bundle", "name a folder with a run.json or a manifest.json, or a .zip"
    )


def read_file(bundle: Path, name: str, most: int) -> bytes:
    """The content of a file of a bundle, of `most` bytes at most: more is damage, and is not read.

    Raises FileNotFoundError, and ValueError for what is too large or no zip.
    """
    if bundle.is_dir():
        path = bundle / name
        if path.stat().st_size > most:
            raise ValueError(f"{name} is larger than {most:,} bytes")
        return path.read_bytes()
    import zipfile  # here: a predict from a folder does without
    import zlib

    try:
        with zipfile.ZipFile(bundle) as archive:
            if archive.getinfo(name).file_size > most:
                raise ValueError(f"{name} is larger than {most:,} bytes")
            return archive.read(name)
    except KeyError as error:
        raise FileNotFoundError(name) from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"not a zip that can be read: {error}") from error


def check_files(bundle: Path, manifest: Manifest) -> None:
    """Raise InputError where a file of the bundle is missing or not the one that was shipped, by its hash.

    `Classifier.verify` also lets the model answer its self-test.
    """
    for name, record in manifest.files.items():
        path, parts = bundle / name, PurePosixPath(name).parts
        # a name of Windows's kind leads out of the folder there, and is no name of ours anywhere
        if not parts or ".." in parts or any(PureWindowsPath(part).name != part for part in parts):
            raise InputError(f"{bundle / MANIFEST}: names a file outside the bundle: {name}")
        try:
            if bundle.is_dir():
                size = path.stat().st_size
                found = FileRecord.of(path) if size == record.bytes else FileRecord(size, "")
            else:
                found = FileRecord.of_content(read_file(bundle, name, record.bytes))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{path}: missing from the bundle", COPY_AGAIN) from error
        except ValueError as error:
            raise InputError(f"{path}: damaged: {error}", COPY_AGAIN) from error
        if found.bytes != record.bytes:
            raise InputError(f"{path}: damaged: {found.bytes} bytes instead of {record.bytes}", COPY_AGAIN)
        if found != record:
            raise InputError(f"{path}: damaged: not the file that was shipped", COPY_AGAIN)


def records_below(folder: Path) -> dict[str, FileRecord]:
    """Every file of an unfinished bundle but its manifest, by its name with `/`."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: FileRecord.of(folder / name) for name in names if name != MANIFEST}


def write_zip(folder: Path, file: Path) -> None:
    """Put a bundle's folder into one zip, atomically; the same bundle gives the same bytes."""
    import zipfile

    with replacing(file) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*"), key=lambda path: (path.name != MANIFEST, path.as_posix())):
            if path.is_file():
                # a time of its own would make every zip another
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(info, path.read_bytes())
