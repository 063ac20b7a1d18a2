"""Everything training needs to go on exactly: arrays by position, and where it stands, in one file.

Keras's own BackupAndRestore keeps neither layer seeds nor metric sums nor early stopping.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.errors import TrainingError
from imgrec_cli.rundir import replacing

Array = NDArray[Any]
_META = "meta"


def write(path: Path, variables: Sequence[Any], meta: dict[str, Any]) -> None:
    """Write Keras variables and `meta` (plain values) to an `.npz` file, atomically."""
    arrays = {f"{position:05d}": keras.ops.convert_to_numpy(variable) for position, variable in enumerate(variables)}
    with replacing(path) as stream:
        np.savez(stream, **{_META: np.array(json.dumps(meta))}, **arrays)  # type: ignore[arg-type]


def read(path: Path) -> tuple[list[Array], dict[str, Any]]:
    """The arrays and the `meta` of a checkpoint. Raises TrainingError where it is missing or damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            meta = json.loads(str(stored[_META]))
            return [stored[name] for name in sorted(set(stored.files) - {_META})], meta
    except Exception as error:  # zipfile, zlib, numpy and json each have their own kinds
        raise TrainingError(f"{path}: not a readable checkpoint: {error}") from error


def restore(variables: Sequence[Any], arrays: Sequence[Array], path: Path) -> None:
    """Put arrays back into variables. Raises TrainingError where number or shapes differ."""
    ours, theirs = [tuple(v.shape) for v in variables], [a.shape for a in arrays]
    if ours != theirs:
        raise TrainingError(f"{path}: holds {len(theirs)} arrays that do not fit the model's {len(ours)}")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
