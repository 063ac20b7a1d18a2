"""Folders → a list of labelled image files; nothing is opened, nothing is changed."""

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imgrec_cli.dataset.walk import SUFFIXES, entries, images_below, natural_order, nfc, suffix_of
from imgrec_cli.errors import DataError

if TYPE_CHECKING:  # config imports pydantic, and `imgrec evaluate` has to start without it
    from imgrec_cli.config.sections import Data

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class Example:
    """One image file.

    `path` is relative to the folder that holds the class folders, with `/` and in Unicode NFC: the same on every
    system. `file` is its absolute path as the disk spells it, `label` the index of its class, `row` its row in the
    pixels.
    """

    path: str
    file: str
    label: int
    split: Split
    row: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What the folders hold, in a fixed order: by split, class, path.

    Of `examples`, `split` says which folder they lie in and `row` counts from 0. `given` are the splits that have a
    folder of their own. `folders` are the folders with the class folders, absolute.
    """

    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    given: frozenset[Split]
    folders: tuple[Path, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Tree:
    """A folder with one folder per class: class name → (path, file) of its images, both in their fixed order."""

    folder: Path
    classes: dict[str, list[tuple[str, str]]]
    warnings: tuple[str, ...]


def scan(data: "Data", key: str = "data.folder") -> Listing:
    """Find all images and their classes. Paths in `data` are absolute.

    `key` is what `data.folder` was typed behind, for messages. Raises DataError, with what to do, for folders that
    cannot be meant, and where no image could choose the model.
    """
    roots = _roots(data, key)
    trees = {split: _read_tree(folder, key) for split, (folder, key) in roots.items()}
    training = trees["train"]
    _check_training(training, roots["train"][1])
    _check_validation(trees.get("validation"), data)
    names = tuple(training.classes)
    warnings = [text for tree in trees.values() for text in tree.warnings]
    for split, tree in trees.items():
        warnings += _compare_classes(names, tree, split)
    labels = {name: label for label, name in enumerate(names)}
    found = (
        (path, file, labels[name], split)
        for split, tree in trees.items()
        for name, images in tree.classes.items()
        for path, file in images
    )
    return Listing(
        class_names=names,
        examples=tuple(Example(*image, row) for row, image in enumerate(found)),
        given=frozenset(trees) - {"train"},
        folders=tuple(tree.folder for tree in trees.values()),
        warnings=tuple(warnings),
    )


def scan_labelled(folder: Path, split: str = "test") -> dict[str, list[tuple[str, Path]]]:
    """Class name → (path, file) of the images of a folder to judge on, classes in natural order.

    Where all its folders are named for splits, such as `train` and `test`, the one of `split` is taken. A class folder
    may be empty. Raises DataError where there is no such folder or no image.
    """
    folder = folder.absolute()
    _check_folder(folder, "--data")
    subfolders = [entry.name for entry in entries(folder) if entry.is_dir()]
    if subfolders and all(name.casefold() in _SPLIT_NAMES for name in subfolders):
        named = [name for name in subfolders if _SPLIT_NAMES[name.casefold()] == split]
        if len(named) != 1:
            raise DataError(
                f"{folder}: no single folder for {split} among {', '.join(sorted(subfolders))}",
                f"name the folder with the class folders: --data {_quoted(folder / sorted(subfolders)[0])}",
            )
        folder /= named[0]
    tree = _read_tree(folder, "--data")
    if not any(tree.classes.values()):
        raise DataError(f"{folder}: no images", _what_is_an_image())
    return {name: [(path, Path(file)) for path, file in images] for name, images in tree.classes.items()}


def image_files(folder: Path) -> list[Path]:
    """All image files in a folder and below it, in natural order. Raises DataError where it cannot be read."""
    found = sorted(images_below(folder), key=lambda image: natural_order(image[0]))
    return [Path(file) for _, file in found]


def _roots(data: "Data", key: str) -> dict[Split, tuple[Path, str]]:
    """The folder of each split that has one, training first, and the key that names it in the config."""
    named: dict[Split, str | None] = {"train": data.train, "validation": data.validation, "test": data.test}
    roots: dict[Split, tuple[Path, str]] = {
        split: (Path(folder), f"data.{split}") for split, folder in named.items() if folder is not None
    }
    if data.folder is not None:
        folder = Path(data.folder)
        if "train" in roots:
            raise DataError(
                "data.folder and data.train both name the training images", "keep one of them, and remove the other"
            )
        _check_folder(folder, key)
        inside = _split_folders(folder, key) or {"train": folder}
        for split, subfolder in inside.items():
            if split in roots:
                raise DataError(
                    f"{roots[split][1]} is given, but data.folder has its own: {subfolder}",
                    f"remove {roots[split][1]}, or name the training images alone: {_setting('data.train', folder)}",
                )
            roots[split] = (subfolder, key)
    if "train" not in roots:
        raise DataError(
            "no training images are named: neither data.folder nor data.train is set",
            "name a folder with one folder per class: --set data.folder=FOLDER",
        )
    for split, (folder, named_by) in roots.items():
        for other, (outer, _) in roots.items():
            if split != other and folder.resolve().is_relative_to(outer.resolve()):
                raise DataError(
                    f"{named_by}: the {split} images {folder} lie among the {other} images {outer}",
                    "images to judge on must not be trained on: give every split a folder of its own",
                )
    return {split: roots[split] for split in SPLITS if split in roots}


def _split_folders(folder: Path, key: str) -> dict[Split, Path]:
    """The folders `train`, `validation` and `test` in `folder`, or nothing where all its folders are classes."""
    found: dict[Split, Path] = {}
    others: list[str] = []
    for entry in sorted(entries(folder), key=lambda entry: natural_order(entry.name)):
        if not entry.is_dir():
            continue
        split = _SPLIT_NAMES.get(entry.name.casefold())
        if entry.name.casefold() == "valid" and not any(inner.is_dir() for inner in entries(Path(entry.path))):
            split = None  # a class: the other one is `invalid`
        if split is None:
            others.append(entry.name)
        elif split in found:
            raise DataError(
                f"{folder}: two folders for {split}: {found[split].name} and {entry.name}",
                "keep one of them here, or name each split's folder by itself: data.train, data.validation, data.test",
            )
        else:
            found[split] = Path(entry.path)
    if not found:
        return {}
    others = [other for other in others if next(images_below(folder / other), None)]
    classes_hint = "if all its folders are classes, name it as data.train in place of data.folder"
    if "train" not in found:
        raise DataError(
            f"{folder}: has {_some(path.name for path in found.values())} but no train folder",
            f"put the class folders of the training images into one named train; {classes_hint}",
        )
    if others:
        raise DataError(
            f"{folder}: {found['train'].name} stands beside other folders with images: {_some(others)}",
            f"if it holds the training images, point there: {_setting(key, found['train'])}; {classes_hint}",
        )
    return found


def _check_folder(folder: Path, key: str) -> None:
    if folder.is_dir():
        return
    if folder.suffix.lower() in _ARCHIVES and folder.is_file():
        target = folder.with_name(folder.name.split(".")[0])
        command = f"python -m zipfile -e {_quoted(folder)} {_quoted(target)}"
        if folder.suffix.lower() != ".zip":
            command = f"tar -xf {_quoted(folder)}"
        raise DataError(f"{key}: {folder}: an archive, not a folder", f"unpack it first: {command}")
    if folder.exists():
        raise DataError(f"{key}: {folder}: a file, not a folder", f"name its folder: {_setting(key, folder.parent)}")
    hint = "relative paths begin at the file that names them" if key.startswith("data.") else ""
    if folder.parent.is_dir():
        near = difflib.get_close_matches(folder.name, [e.name for e in entries(folder.parent) if e.is_dir()], 1)
        if near:
            hint = f"did you mean {_setting(key, folder.parent / near[0])}"
    raise DataError(f"{key}: {folder}: no such folder", hint)


def _read_tree(folder: Path, key: str) -> _Tree:
    """All images of the class folders in `folder`; folders whose names are equal in NFC are one class."""
    _check_folder(folder, key)
    others: Counter[str] = Counter()
    loose: list[str] = []
    classes: dict[str, list[tuple[str, str]]] = {}
    for entry in entries(folder):
        if entry.is_dir():
            name = nfc(entry.name)
            images = classes.setdefault(name, [])
            images += ((f"{name}/{path}", file) for path, file in images_below(Path(entry.path), others))
        elif suffix_of(entry.name) in SUFFIXES:
            loose.append(entry.name)
        else:
            others[suffix_of(entry.name)] += 1
    if loose and not any(classes.values()):
        raise DataError(
            f"{folder}: {_count(len(loose), 'image')} in it, but no class folders",
            f"make one folder per class and move the images there, such as "
            f"{_quoted(folder / 'CLASS_NAME' / min(loose))}",
        )
    if not any(classes.values()) and others:
        raise DataError(f"{folder}: no images, only {_kinds(others)}", _what_is_an_image())
    warnings = []
    if loose:
        warnings.append(
            f"{folder}: {_count(len(loose), 'image')} outside of the class folders ignored, such as {min(loose)}"
        )
    if others:
        number = others.total()
        are = "files are not images and were" if number > 1 else "file is not an image and was"
        warnings.append(f"{folder}: {number} {are} ignored: {_kinds(others)}")
    ordered = {name: sorted(classes[name]) for name in sorted(classes, key=natural_order)}
    return _Tree(folder, ordered, tuple(warnings))


def _check_training(tree: _Tree, key: str) -> None:
    """Raise DataError where a tree is none to train on: no image, a level too high, one class, an empty class."""
    filled = [name for name, images in tree.classes.items() if images]
    if not filled:
        raise DataError(f"{tree.folder}: no images", _what_is_an_image())
    if len(filled) == 1:
        deeper = _class_folders_below(tree.classes[filled[0]])
        if deeper:
            raise DataError(
                f"{tree.folder}: its only folder is {filled[0]}; the class folders seem to lie deeper: "
                f"{_some(path.name for path in deeper)}",
                f"name the folder that holds them: {_setting(key, deeper[0].parent)}",
            )
        raise DataError(
            f"{tree.folder}: only one class, {filled[0]}",
            "a classifier needs two or more: make a folder for each, with its images",
        )
    empty = [name for name in tree.classes if name not in filled]
    if empty:
        raise DataError(
            f"{tree.folder}: no image in {_count(len(empty), 'class folder')}: {_some(empty)}",
            "remove what is no class, or put images in",
        )


def _check_validation(given: _Tree | None, data: "Data") -> None:
    """Raise DataError where it is plain from names that no image would choose the model."""
    if given is not None and not any(given.classes.values()):
        raise DataError(
            f"{given.folder}: no images, and those of validation choose the best weights", _what_is_an_image()
        )
    if given is None and not data.split.validation:
        raise DataError(
            "no validation images: data.split.validation is 0%, and there is no folder of them",
            "they choose the best weights: set some aside, such as --set data.split.validation=15%",
        )


def _class_folders_below(images: list[tuple[str, str]]) -> list[Path]:
    """The first folders below their common one, where no image lies in the common one itself."""
    levels = [path.split("/")[:-1] for path, _ in images]
    depth = 0
    while all(len(level) > depth and level[depth] == levels[0][depth] for level in levels):
        depth += 1
    if any(len(level) == depth for level in levels):
        return []
    return sorted({Path(file).parents[len(level) - depth - 1] for level, (_, file) in zip(levels, images, strict=True)})


def _compare_classes(names: tuple[str, ...], tree: _Tree, split: Split) -> list[str]:
    """A warning about classes that a split lacks. Raises DataError for classes that training does not have."""
    extra = [name for name, images in tree.classes.items() if images and name not in names]
    missing = [name for name in names if not tree.classes.get(name)]
    if extra:
        lines = [f"{tree.folder}: {split} has classes that training lacks: {_some(extra)}"]
        lines += [f"  and lacks of training's: {_some(missing)}"] if missing else []
        near = [(name, match[0]) for name in extra if (match := difflib.get_close_matches(name, missing or names, 1))]
        hint = "rename or remove these folders"
        if near:
            hint = f"is {near[0][0]} the class {near[0][1]}? class folders must have the same names everywhere"
        raise DataError("\n".join(lines), hint)
    return [f"{tree.folder}: no {split} images of {_some(missing)}"] if missing else []


def _setting(key: str, folder: Path) -> str:
    """What to type to set a folder."""
    if not key.startswith("data."):  # an option or a command
        return f"{key} {_quoted(folder)}"
    text = f"{key}={folder}"
    return f'--set "{text}"' if " " in text else f"--set {text}"


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


def _some(names: Iterable[str], most: int = 10) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _kinds(others: Counter[str]) -> str:
    named = Counter({suffix or "without suffix": number for suffix, number in sorted(others.items(), reverse=True)})
    return ", ".join(f"{number} {suffix}" for suffix, number in named.most_common())


def _what_is_an_image() -> str:
    return f"images are files whose names end in {', '.join(sorted(SUFFIXES))}, one folder per class"
