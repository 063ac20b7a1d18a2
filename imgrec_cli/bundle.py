"""The manifest of a shipped model: read, written and verified with the standard library alone.

A bundle is a folder: `manifest.json`, the exported model, `selftest.npz`. It holds no code and no pixel of the user's.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from imgrec_cli.errors import InputError
from imgrec_cli.imaging import PixelSpec
from imgrec_cli.rundir import Run, write_json

Item = TypeVar("Item")

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.tflite"
SELFTEST = "selftest.npz"
# a probability may differ from the reference by less than this
LARGEST_GAP = 1e-3
MAX_MANIFEST_BYTES = 10_000_000  # 100,000 classes with long names fit
MAX_SIDE = 4096  # of an image, as in the config


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file of the bundle."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        with path.open("rb") as stream:
            return cls(path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())


@dataclass(frozen=True, slots=True)
class Parity:
    """How the exported model's answers compare with those of the trained weights in Keras at float32.

    Measured on the `images` of the validation split. `largest_gap` is the largest difference of any output,
    `disagreements` the number of labels that differ, and `precision_changes` the number that differ between training's
    own precision and float32.
    """

    images: int
    largest_gap: float
    disagreements: int
    precision_changes: int


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
    to right.
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
        if not {MODEL, SELFTEST} <= self.files.keys():
            raise ValueError(f"files lacks {MODEL} or {SELFTEST}")

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

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into the bundle's folder, atomically."""
        write_json(folder / MANIFEST, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest in `folder`. Raises InputError where it is missing, of another format, or damaged."""
        path = folder / MANIFEST
        try:
            if path.stat().st_size > MAX_MANIFEST_BYTES:
                raise ValueError(f"larger than {MAX_MANIFEST_BYTES:,} bytes")
            values = json.loads(path.read_text(encoding="utf-8"))
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
            raise InputError(f"{folder}: not a bundle, it has no {MANIFEST}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: damaged: {error!r}", _COPY_AGAIN) from error


def find_bundle(path: Path) -> Path:
    """The bundle that `path` names: a bundle's folder or a run's. Raises InputError where there is none."""
    if (path / MANIFEST).is_file():
        return path
    if (path / "run.json").is_file():
        run = Run.open(path)
        if (run.bundle_folder / MANIFEST).is_file():
            return run.bundle_folder
        raise InputError(f"{path}: this run has no bundle; its status is {run.record.get('status')}")
    if not path.exists():
        raise InputError(f"{path}: no such run or bundle", "imgrec runs lists the runs here")
    if path.suffix in (".keras", ".h5", ".hdf5", ".pb", ".pt", ".pkl"):
        raise InputError(
            f"{path}: such a file can carry code and is never loaded to predict",
            "name a bundle: imgrec train writes one, runs/RUN/bundle",
        )
    raise InputError(f"{path}: neither a run nor a bundle", "name a folder with a run.json or a manifest.json")


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raise InputError where a file of the bundle is missing or not the one that was shipped, by its hash.

    `Classifier.verify` also lets the model answer its self-test.
    """
    for name, record in manifest.files.items():
        path = folder / name
        # a name of Windows's kind leads out of the folder there, and is no name of ours anywhere
        if PurePosixPath(name).name != name or PureWindowsPath(name).name != name or name in ("", ".", ".."):
            raise InputError(f"{folder / MANIFEST}: names a file outside the bundle: {name}")
        if not path.is_file():
            raise InputError(f"{path}: missing from the bundle", _COPY_AGAIN)
        if path.stat().st_size != record.bytes:
            raise InputError(f"{path}: damaged: {path.stat().st_size} bytes instead of {record.bytes}", _COPY_AGAIN)
        if FileRecord.of(path) != record:
            raise InputError(f"{path}: damaged: not the file that was shipped", _COPY_AGAIN)


_COPY_AGAIN = "copy the bundle again, or train again"
