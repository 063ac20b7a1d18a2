"""The manifest of a shipped model: read, written and verified with the standard library alone.

A bundle is a folder: `manifest.json`, the exported model, `selftest.npz`. It holds no code and no pixel of the user's.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imgrec_cli.errors import InputError
from imgrec_cli.imaging import PixelSpec
from imgrec_cli.rundir import Run, write_json

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.tflite"
SELFTEST = "selftest.npz"
# a probability may differ from the reference by less than this
LARGEST_GAP = 1e-3


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
    of the validation images below it. `other` are the classes answered as "none of these". `mirrored` says whether
    training showed images mirrored left to right.
    """

    name: str
    created: str
    class_names: list[str]
    pixels: PixelSpec
    files: dict[str, FileRecord]
    parity: Parity
    versions: dict[str, str]
    scores: dict[str, Any] = field(default_factory=dict)
    decision: Decision = field(default_factory=Decision)
    unfamiliar_above: float | None = None
    other: list[str] = field(default_factory=list)
    mirrored: bool = False
    format: int = FORMAT_VERSION

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into the bundle's folder, atomically."""
        write_json(folder / MANIFEST, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest in `folder`. Raises InputError where it is missing, of another format, or damaged."""
        path = folder / MANIFEST
        try:
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
            return cls(**values)
        except FileNotFoundError as error:
            raise InputError(f"{folder}: not a bundle, it has no {MANIFEST}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: damaged: {error!r}", "copy the bundle again, or train again") from error


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
    raise InputError(f"{path}: neither a run nor a bundle", "name a folder with a run.json or a manifest.json")


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raise InputError where a file of the bundle is missing or has another size; `Classifier.verify` reads them."""
    for name, record in manifest.files.items():
        path = folder / name
        if Path(name).name != name:
            raise InputError(f"{folder / MANIFEST}: names a file outside the bundle: {name}")
        if not path.is_file():
            raise InputError(f"{path}: missing from the bundle", "copy the bundle again, or train again")
        if path.stat().st_size != record.bytes:
            raise InputError(
                f"{path}: damaged: {path.stat().st_size} bytes instead of {record.bytes}",
                "copy the bundle again, or train again",
            )
