"""Manifests: images listed in a CSV or JSONL file, with their labels, and splits and groups where they are known."""

import csv
import difflib
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgrec_cli.atomic import write_csv, write_text
from imgrec_cli.dataset.walk import SPLIT_NAMES, Split, nfc
from imgrec_cli.errors import DataError
from imgrec_cli.storage import is_url, parted

COLUMNS = ("path", "label", "split", "group")
_MEANT = {
    **dict.fromkeys(("file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "name"), "path"),
    **dict.fromkeys(("class", "class_name", "category", "target", "y", "labels"), "label"),
    **dict.fromkeys(("subset", "set", "partition", "fold", "splits"), "split"),
    **dict.fromkeys(("groups", "group_id", "subject", "patient", "patient_id"), "group"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a manifest: `path` as written, with `/` and in NFC, `file` absolute; `split` and `group` may be
    empty."""

    path: str
    file: str
    label: str
    split: Split | None
    group: str


def read_manifest(file: Path) -> tuple[list[Row], list[str]]:
    """The rows of a manifest and warnings about columns that mean nothing here.

    Relative paths begin at the manifest's folder. Raises DataError with the line for whatever is wrong in it.
    """
    rows: list[Row] = []
    seen: dict[str, int] = {}
    missing: list[tuple[int, str]] = []
    ignored: dict[str, None] = {}
    checked: set[tuple[str, ...]] = set()
    for line, values in table(file, "data.manifest"):
        columns = tuple(values)
        if columns not in checked:  # in JSONL every line has its own
            _check_columns(file, line, columns)
            checked.add(columns)
            ignored.update(dict.fromkeys(key for key in columns if key not in COLUMNS))
        path, label = nfc(values["path"].strip().replace("\\", "/")), nfc(values["label"].strip())
        for key, value in (("path", path), ("label", label)):
            if not value:
                raise DataError(f"{file}:{line}: {key} is empty", "every line needs a path and a label")
        split = SPLIT_NAMES.get(values.get("split", "").strip().casefold())
        if split is None and values.get("split", "").strip():
            raise DataError(
                f"{file}:{line}: split is {values['split']!r}",
                "write train, validation or test, or leave it empty to have the split cut",
            )
        # the path as the disk spells it; names differ from NFC on some systems
        place = os.path.abspath(file.parent / values["path"].strip().replace("\\", "/"))  # noqa: PTH100
        if not os.path.isfile(place):  # noqa: PTH113 - a Path per file takes longer
            missing.append((line, path))
        if place in seen:
            raise DataError(f"{file}:{line}: {path} stands on line {seen[place]} already", "keep one of the lines")
        seen[place] = line
        rows.append(Row(path, place, label, split, values.get("group", "").strip()))
    if missing:
        number = f"{len(missing):,} of {len(rows):,} images are"
        raise DataError(
            f"{file}:{missing[0][0]}: {number} not there, such as {missing[0][1]}",
            f"paths begin at the manifest's folder, {file.parent}: move it to where they fit",
        )
    if not rows:
        raise DataError(f"{file}: no images in it", "its lines are: path,label")
    warnings = [f"{file}: columns without a meaning here ignored: {', '.join(ignored)}"] if ignored else []
    return rows, warnings


def table(file: Path, key: str) -> Iterable[tuple[int, dict[str, str]]]:
    """(line number, values by column) of a CSV or JSONL file. Raises DataError where it is neither."""
    if not file.is_file():
        raise DataError(f"{key}: {file}: no such file", "relative paths begin at the file that names them")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{key}: {file}: cannot be read as UTF-8 text", "save it as CSV in UTF-8") from error
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        for number, written in enumerate(text.split("\n"), 1):
            if written.strip():
                yield number, _object(file, number, written)
        return
    delimiter = ";" if text.split("\n", 1)[0].count(";") > text.split("\n", 1)[0].count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip().casefold() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise DataError(f"{file}:1: a column stands there twice: {', '.join(header)}", "keep one of them")
        begins = reader.line_num + 1
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{file}:{line}: {len(cells)} cells, and the header has {len(header)}",
                    "put a cell that holds a comma in quotes",
                )
            yield line, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: not valid CSV: {error}") from error


def _object(file: Path, number: int, line: str) -> dict[str, str]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(
            f"{file}:{number}: not valid JSON: {error}", 'a line is such as {"path": "a.jpg", …}'
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{file}:{number}: not an object", 'a line is such as {"path": "a.jpg", "label": "cat"}')
    return {str(key): "" if cell is None else str(cell) for key, cell in value.items()}


def _check_columns(file: Path, line: int, values: Sequence[str]) -> None:
    for needed in ("path", "label"):
        if needed not in values:
            meant = next((key for key in values if _MEANT.get(key) == needed), "")
            advice = f"rename {meant} to {needed}" if meant else "the header of a manifest is: path,label,split,group"
            raise DataError(f"{file}:{line}: no column {needed}, only {', '.join(values)}", advice)
    for key in values:
        near = _MEANT.get(key) or next(iter(difflib.get_close_matches(key, COLUMNS, 1, 0.8)), "")
        if key not in COLUMNS and near and near not in values:
            raise DataError(f"{file}:{line}: unknown column {key}", f"rename it to {near}, or remove it")


def write_manifest(file: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV, or as JSONL where the name ends so, with paths relative to the file's folder."""
    base = file.absolute().parent
    lines = [(relative_to(base, row.file), row.label, row.split or "", row.group) for row in rows]
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        texts = (json.dumps(dict(zip(COLUMNS, line, strict=True)), ensure_ascii=False) for line in lines)
        write_text(file, "".join(f"{text}\n" for text in texts))
    else:
        write_csv(file, COLUMNS, lines)


def relative_to(folder: Path, file: str) -> str:
    """A file's path from a folder, with `/`. Raises DataError between two drives of Windows, and for a file that is in
    a shard or behind a URL."""
    if is_url(file) or parted(file)[0]:
        raise DataError(
            f"a manifest names files on disk, and this is none: {file}",
            "what keeps a split as it is while images are added: train, validation and test in places of their own",
        )
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        raise DataError(
            f"{folder}: lies on another drive than {file}", "paths are kept relative: write to the drive of the images"
        ) from None
