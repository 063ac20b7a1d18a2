"""Everything training needs to go on exactly, in one file that is checked by its digests: arrays by position, and where
it stands.

Keras's own BackupAndRestore keeps neither layer seeds nor metric sums nor early stopping.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.atomic import replacing
from imgrec_cli.errors import TrainingError
from imgrec_cli.rundir import Run
from imgrec_cli.training.distribute import whole

Array = NDArray[Any]
Groups = Mapping[str, Sequence[Any]]
_META, _SEAL = "meta", "seal"


def write(path: Path, groups: Groups, meta: dict[str, Any]) -> None:
    """Write named groups of Keras variables or arrays, and `meta` (plain values), to an `.npz` file, atomically."""
    arrays = {
        f"{group}/{place:05d}": _array(value) for group, values in groups.items() for place, value in enumerate(values)
    }
    text = json.dumps({"meta": meta, "digests": {name: _digest(array) for name, array in arrays.items()}})
    seal = hashlib.sha256(text.encode()).hexdigest()
    with replacing(path) as stream:
        np.savez(stream, **{_META: np.array(text), _SEAL: np.array(seal)}, **arrays)  # type: ignore[arg-type]


def read(path: Path) -> tuple[dict[str, list[Array]], dict[str, Any]]:
    """The groups of arrays and the `meta` of a checkpoint. Raises TrainingError where it is missing or damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            text = str(stored[_META])
            if hashlib.sha256(text.encode()).hexdigest() != str(stored[_SEAL]):
                raise ValueError("its description was changed")
            told = json.loads(text)
            groups: dict[str, list[Array]] = {}
            for name, digest in told["digests"].items():
                array = stored[name]
                if _digest(array) != digest:
                    raise ValueError(f"array {name} was changed")
                groups.setdefault(name.partition("/")[0], []).append(array)
            return groups, told["meta"]
    except Exception as error:  # zipfile, zlib, numpy and json each have their own kinds
        raise TrainingError(f"{path}: not a readable checkpoint: {error}") from error


def restore(variables: Sequence[Any], arrays: Sequence[Array], path: Path) -> None:
    """Put arrays back into variables. Raises TrainingError where number, shapes or types differ."""
    ours = [(tuple(variable.shape), str(variable.dtype)) for variable in variables]
    theirs = [(array.shape, str(array.dtype)) for array in arrays]
    if ours != theirs:
        raise TrainingError(f"{path}: holds {len(theirs)} arrays that do not fit the model's {len(ours)}")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def digest(values: Sequence[Any]) -> str:
    """SHA-256 over the bits of Keras variables or arrays in their order, 64 hexadecimal digits."""
    return hashlib.sha256("".join(_digest(_array(value)) for value in values).encode()).hexdigest()


def copies(variables: Sequence[Any]) -> list[Array]:
    """The values of Keras variables, which later steps do not change."""
    return [np.array(_array(variable)) for variable in variables]


def write_last(run: Run, groups: Groups, meta: dict[str, Any]) -> None:
    """Make this the run's last checkpoint once it has been read back; the one before stays as the previous one.

    Raises TrainingError where what was written cannot be read back.
    """
    write(run.next_checkpoint, groups, meta)
    try:
        read(run.next_checkpoint)
    except TrainingError:
        run.next_checkpoint.unlink()
        raise
    if run.last_checkpoint.exists():
        run.last_checkpoint.replace(run.previous_checkpoint)
    run.next_checkpoint.replace(run.last_checkpoint)


def drop_unnamed_parts(run: Run) -> None:
    """Remove states in parts that neither of the two checkpoints names."""
    folders = run.state_folders()
    if folders:
        paths = [path for path in (run.last_checkpoint, run.previous_checkpoint) if path.exists()]
        named = {read(path)[1].get("parts") for path in paths}
        for folder in folders:
            if folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Found:
    """A checkpoint that could be read, its arrays and `meta`, and what is wrong with newer ones."""

    path: Path
    groups: dict[str, list[Array]]
    meta: dict[str, Any]
    damaged: tuple[str, ...]


def read_last(run: Run) -> Found | None:
    """The newest checkpoint of a run that can be read; None where there is none.

    Raises TrainingError where there are some and none can be read.
    """
    damaged = []
    # a process that was killed between two renamings leaves the newest one under the name of the next
    for path in (run.next_checkpoint, run.last_checkpoint, run.previous_checkpoint):
        if path.exists():
            try:
                groups, meta = read(path)
            except TrainingError as error:
                damaged.append(error.message)
                continue
            return Found(path, groups, meta, tuple(damaged))
    if damaged:
        raise TrainingError("; ".join(damaged), "no state is left to go on from: train again")
    return None


def _array(value: Any) -> Array:
    return value if isinstance(value, np.ndarray) else whole(value)


def _digest(array: Array) -> str:
    found = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    found.update(np.ascontiguousarray(array).data if array.ndim else array.tobytes())
    return found.hexdigest()
