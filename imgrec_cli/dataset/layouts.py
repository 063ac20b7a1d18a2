"""Collections that are laid out otherwise: recognised, and answered with the lines to type."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from imgrec_cli.dataset.sources import inside, rows_of_shards
from imgrec_cli.dataset.walk import SUFFIXES, entries, images_below, natural_order, suffix_of
from imgrec_cli.errors import ARCHIVES, DataError, quoted, unpack_command
from imgrec_cli.storage import File
from imgrec_cli.wording import some

# How the class is found in a file's name, the plainest rule first.
_NAME_RULES = (r"^([^\W\d_]+)[ _.-]*\d", r"^(.*?)[ _.-]*\d+\.\w+", r"^([^_]+)_", r"_([^\W\d_]+)\.")
_SUBJECT = re.compile(
    r"(subject|subj|sub|patient|pat|person|participant|volunteer|user|case|animal|id|session|s|p|u)[ _.-]*\d+"
)
_PEEK_BYTES = 65536
_INNER_CLASS = "^[^/]+/([^/]+)/"
_OUTER_GROUP = "^([^/]+)/"


def setting(key: str, value: File) -> str:
    """What to type to set a folder or an expression; `key` is a key of the config, an option or a command."""
    if not key.startswith("data."):
        return f"{key} {quoted(value)}"
    text = f"{key}={value}"
    return f'--set "{text}"' if re.search(r"[^\w=./:\\-]", text) else f"--set {text}"


def rules(key: str, folder: File, label_from: str, group: str = "") -> str:
    """What to type so that labels, and groups where one is given, come from an expression."""
    if key.startswith("data."):
        settings = [setting("data.label_from", label_from)] + ([setting("data.group", group)] if group else [])
        return " ".join(settings)
    grouped = f' --group "{group}"' if group else ""
    return f'imgrec config init {quoted(folder)} --label-from "{label_from}"{grouped}'


def refuse_archive(archive: Path, key: str) -> None:
    """Raise DataError for an archive of images."""
    if archive.suffix.lower() in ARCHIVES and archive.is_file():
        unpack, target = unpack_command(archive)
        raise DataError(
            f"{key}: {archive}: an archive, not a folder",
            f"unpack it first:\n  {unpack}\n  {setting(key, target)}",
        )


def refuse_detection_set(folder: Path) -> None:
    """Raise DataError where a folder holds boxes: `images/` beside `labels/` of text files, or a COCO JSON file."""
    inside = {entry.name.casefold(): Path(entry.path) for entry in entries(folder) if entry.is_dir()}
    images = inside.get("images")
    if images and "labels" in inside:
        others: Counter[str] = Counter()
        if next(images_below(inside["labels"], others), None) is None and others[".txt"]:
            raise _detection_set(folder, images, f"its boxes are in {inside['labels'].name}/*.txt")
    for place in (folder, *(inside[name] for name in ("annotations",) if name in inside)):
        for entry in sorted(entries(place), key=lambda entry: entry.name):
            if suffix_of(entry.name) == ".json" and entry.is_file() and _is_coco(Path(entry.path)):
                raise _detection_set(folder, folder, f"its boxes are in {Path(entry.path).relative_to(folder)}")


def _detection_set(folder: Path, images: Path, boxes: str) -> DataError:
    first = min(images_below(images), default=("FILE.jpg", ""))[0]
    example = (images / first).relative_to(folder).as_posix()
    return DataError(
        f"{folder}: a detection set, {boxes}; imgrec gives one class to a whole picture",
        "where every picture shows one thing, list them in a file labels.csv in that folder:\n"
        f"  path,label\n  {example},CLASS_NAME\n"
        f"and name it in the config in place of the folder:\n  data: {{manifest: {quoted(folder / 'labels.csv')}}}\n"
        "where pictures show several, cut the boxes out first and save each into a folder of its class",
    )


def _is_coco(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(_PEEK_BYTES)
        stream.seek(max(0, file.stat().st_size - _PEEK_BYTES))
        text = head + stream.read(_PEEK_BYTES)
    return b'"annotations"' in text and (b'"bbox"' in text or b'"categories"' in text)


def refuse_flat(folder: File, names: Sequence[str], key: str) -> None:
    """Raise DataError for images without class folders, with a rule on their names where one fits all of them."""
    count = f"{len(names):,} image{'s' if len(names) != 1 else ''}"
    message = f"{folder}: {count} in it, but no class folders"
    example = quoted(inside(folder, f"CLASS_NAME/{min(names)}"))
    by_folder = f"make one folder per class and move the images there, such as {example}"
    rule = _rule_for(names)
    if rule is None:
        by_name = rules(key, folder, "^([a-z]+)_")
        raise DataError(message, f"{by_folder}\nor, where the class begins names such as cat_01.jpg:\n  {by_name}")
    found = sorted({_search(rule, name) or "" for name in names}, key=natural_order)
    raise DataError(
        message,
        f"their names seem to begin with or hold the class ({some(found)}); if so:\n"
        f"  {rules(key, folder, rule)}\nelse {by_folder}",
    )


def refuse_folder_of_shards(folder: File, names: Sequence[str], key: str) -> None:
    """Raise DataError for a folder of tar shards, with what names them."""
    rows = rows_of_shards(names)
    raise DataError(
        f"{folder}: {len(names):,} tar files in it, and no images beside them",
        "shards are named by their files: " + " or ".join(setting(key, inside(folder, row)) for row in rows[:3]),
    )


def look_for_subjects(folder: File, classes: dict[str, list[str]], key: str) -> list[str]:
    """A warning where all class folders hold the same folders, so that these may be the classes.

    `classes` are class name → paths that begin with it. Raises DataError where their names are those of subjects, such
    as `patient03`.
    """
    if len(classes) < 2 or not all(classes.values()):
        return []
    subjects = all(_SUBJECT.fullmatch(name.casefold()) for name in classes)
    levels = {name: [path.split("/")[1:] for path in paths] for name, paths in classes.items()}
    inner = [{level[0] for level in found if len(level) > 1} for found in levels.values()]
    shared = set.intersection(*inner)
    if len(shared) >= 2 and all(len(level) > 1 for found in levels.values() for level in found):
        names = sorted(set.union(*inner), key=natural_order)
        if subjects:
            raise _one_folder_per_subject(folder, list(classes), names, key, _INNER_CLASS)
        if all(found == shared for found in inner):
            return [
                f"{folder}: every class folder holds the same folders, {some(names)}; if those are the classes: "
                + rules(key, folder, _INNER_CLASS, _OUTER_GROUP)
            ]
    elif subjects:
        files = {name: [level[-1] for level in found] for name, found in levels.items()}
        rule = _rule_for([file for found in files.values() for file in found])
        if rule is not None:
            per_subject = [{_search(rule, file) for file in found} for found in files.values()]
            seen = Counter(label for labels in per_subject for label in labels)
            if len(seen) >= 2 and min(seen.values()) >= 2:
                names = sorted((label or "" for label in seen), key=natural_order)
                deep = rule.replace("^", "^(?:[^/]+/)+", 1)
                raise _one_folder_per_subject(folder, list(classes), names, key, deep)
    return []


def _one_folder_per_subject(folder: File, subjects: list[str], names: list[str], key: str, rule: str) -> DataError:
    named = some(sorted(subjects, key=natural_order), 3)
    return DataError(
        f"{folder}: one folder per subject, it seems: {named}; the classes inside: {some(names)}",
        f"take the class from inside, and keep a subject's images on one side of the split:\n"
        f"  {rules(key, folder, rule, _OUTER_GROUP)}\n"
        f"where the outer folders are the classes: {rules(key, folder, _OUTER_GROUP)}",
    )


def class_folders_below(images: Sequence[tuple[str, str]]) -> list[Path]:
    """The first folders below the common one of (path, file), where no image lies in the common one itself."""
    levels = [path.split("/")[:-1] for path, _ in images]
    depth = 0
    while all(len(level) > depth and level[depth] == levels[0][depth] for level in levels):
        depth += 1
    if any(len(level) == depth for level in levels):
        return []
    return sorted({Path(file).parents[len(level) - depth - 1] for level, (_, file) in zip(levels, images, strict=True)})


def _rule_for(names: Sequence[str]) -> str | None:
    """The first rule that finds a class in every name: two or more, of two images or more on average."""
    for rule in _NAME_RULES:
        found = {_search(rule, name) for name in names}
        if None not in found and "" not in found and 2 <= len(found) <= len(names) / 2:
            return rule
    return None


def _search(rule: str, name: str) -> str | None:
    return match[1] if (match := re.search(rule, name)) else None


def what_is_an_image() -> str:
    """Which files count."""
    return f"images are files whose names end in {', '.join(sorted(SUFFIXES))}, one folder per class"
