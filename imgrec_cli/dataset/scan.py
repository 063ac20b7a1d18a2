"""Folders and manifests → a list of labelled image files; no image is opened, nothing is changed."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.dataset import layouts
from imgrec_cli.dataset.classes import class_of
from imgrec_cli.dataset.layouts import setting, what_is_an_image
from imgrec_cli.dataset.manifest import read_manifest
from imgrec_cli.dataset.walk import (
    SPLIT_NAMES,
    SPLITS,
    SUFFIXES,
    Split,
    entries,
    images_below,
    natural_order,
    nfc,
    suffix_of,
)
from imgrec_cli.errors import DataError, quoted

if TYPE_CHECKING:  # config imports pydantic, and `imgrec evaluate` has to start without it
    from imgrec_cli.config.sections import Data


@dataclass(frozen=True, slots=True)
class Example:
    """One image file.

    `path` is relative to the folder that holds the class folders, or to what several folders share, or as a manifest
    has it, with `/` and in Unicode NFC: the same on every system. `file` is its absolute path as the disk spells it,
    `label` the index of its class, `row` its row in the pixels, `group` what a manifest says must stay together.
    """

    path: str
    file: str
    label: int
    split: Split
    row: int
    group: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What the folders hold, in a fixed order: by split, class, path.

    Of `examples`, `split` says which folder they lie in and `row` counts from 0. `given` are the splits that have a
    folder of their own. `folders` are the folders with the class folders, absolute, and the manifest. `remarks` are
    (kind, text) of what may be wrong. `left_out` are the names of folders or labels that `data.classes` leaves out.
    """

    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    given: frozenset[Split]
    folders: tuple[Path, ...]
    remarks: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(text for _, text in self.remarks)

    def shown(self) -> list[str]:
        """A short name for every example: its file's path below what all folders share, with `/` and in NFC."""
        bases = [str(folder if folder.is_dir() else folder.parent) for folder in self.folders]
        try:
            base = os.path.commonpath(bases)
        except ValueError:  # two drives of Windows
            return [example.path for example in self.examples]
        return [nfc(os.path.relpath(example.file, base).replace(os.sep, "/")) for example in self.examples]


_Image = tuple[str, str, str]  # path, file, group


@dataclass(frozen=True, slots=True)
class _Tree:
    """Images of one split from one place, a folder or a manifest: name of the class → images in their fixed order."""

    place: Path
    classes: dict[str, list[_Image]]
    remarks: tuple[tuple[str, str], ...]


class Problems:
    """What is wrong with folders but need not stop a look at them: raised at once, or kept for a list."""

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self.kept: list[tuple[str, DataError]] = []

    def meet(self, kind: str, error: DataError) -> None:
        """Raise the error, or keep it where that was asked for."""
        if not self.keep:
            raise error
        self.kept.append((kind, error))


def scan(data: "Data", key: str = "data.folder", problems: Problems | None = None) -> Listing:
    """Find all images and their classes. Paths in `data` are absolute.

    `key` is what `data.folder` was typed behind, for messages. Raises DataError, with what to do, for folders that
    cannot be meant, and where no image could choose the model; `problems` may take up some of them.
    """
    problems = problems or Problems()
    trees = [*_folder_trees(data, key), *_manifest_trees(data)]
    _check_no_file_twice(trees)
    raw = {name for _, tree in trees for name in tree.classes}
    named = class_of(raw, data.classes)
    trees = [(split, _Tree(tree.place, _renamed(tree.classes, named), tree.remarks)) for split, tree in trees]
    by_split: dict[Split, dict[str, list[_Image]]] = {}
    for split, tree in trees:
        for name, images in tree.classes.items():
            by_split.setdefault(split, {}).setdefault(name, []).extend(images)
    place = {split: next(tree.place for own, tree in trees if own == split) for split in by_split}
    training = by_split.get("train", {})
    _check_training(training, place.get("train", trees[0][1].place), key if data.folder is not None else "data.train")
    names = tuple(sorted((name for name, images in training.items() if images), key=natural_order))
    _check_empty(training, place["train"], problems)
    _check_validation(by_split.get("validation"), place.get("validation"), data, problems)
    remarks = [remark for _, tree in trees for remark in tree.remarks]
    for split, classes in by_split.items():
        remarks += _compare_classes(names, classes, place[split], split, problems)
    labels = {name: label for label, name in enumerate(names)}
    found = (
        (path, file, labels[name], split, group)
        for split in SPLITS
        if split in by_split
        for name in sorted(by_split[split], key=natural_order)
        if name in labels
        for path, file, group in sorted(by_split[split][name])
    )
    return Listing(
        class_names=names,
        examples=tuple(
            Example(path, file, label, split, row, group) for row, (path, file, label, split, group) in enumerate(found)
        ),
        given=frozenset(by_split) - {"train"},
        folders=tuple(dict.fromkeys(tree.place for _, tree in trees)),
        remarks=tuple(remarks),
        left_out=tuple(sorted((name for name, target in named.items() if target is None), key=natural_order)),
    )


def _folder_trees(data: "Data", key: str) -> list[tuple[Split, _Tree]]:
    """The trees of all folders that are named, in the order of the splits."""
    roots = _roots(data, key)
    shared = os.path.commonpath([folder for _, folder, _ in roots]) if len(data.folders) > 1 else None
    trees = []
    for split, folder, named_by in roots:
        prefix = ""
        if shared is not None:
            prefix = nfc(os.path.relpath(folder, shared).replace(os.sep, "/")) + "/"
        trees.append((split, _read_tree(folder, named_by, data.label_from, prefix)))
    return trees


def _manifest_trees(data: "Data") -> list[tuple[Split, _Tree]]:
    """The images of the manifest, a tree for each split; rows without a split are to be trained on or cut from."""
    if data.manifest is None:
        return []
    file = Path(data.manifest)
    rows, warnings = read_manifest(file)
    trees: dict[Split, _Tree] = {}
    remarks = tuple(("stray", text) for text in warnings)
    for row in rows:
        split = row.split or "train"
        tree = trees.setdefault(split, _Tree(file, {}, () if trees else remarks))
        tree.classes.setdefault(row.label, []).append((row.path, row.file, row.group))
    return [(split, trees[split]) for split in SPLITS if split in trees]


def _check_no_file_twice(trees: list[tuple[Split, _Tree]]) -> None:
    """Raise DataError where a manifest lists an image that lies in one of the folders as well."""
    places = {tree.place for _, tree in trees}
    if len(places) < 2:
        return
    seen: dict[str, Path] = {}
    for _, tree in trees:
        for images in tree.classes.values():
            for _, file, _ in images:
                first = seen.setdefault(file, tree.place)
                if first != tree.place:
                    raise DataError(
                        f"{file} is named twice: by {first} and by {tree.place}",
                        "take it out of the manifest, or name the manifest alone: what stands in it is all there is",
                    )


def _renamed(classes: dict[str, list[_Image]], named: dict[str, str | None]) -> dict[str, list[_Image]]:
    renamed: dict[str, list[_Image]] = {}
    for name, images in classes.items():
        target = named[name]
        if target is not None:
            renamed.setdefault(target, []).extend(images)
    return renamed


def scan_labelled(folder: Path, split: str = "test") -> dict[str, list[tuple[str, Path]]]:
    """Class name → (path, file) of the images of a folder to judge on, classes in natural order.

    Where all its folders are named for splits, such as `train` and `test`, the one of `split` is taken. A class folder
    may be empty. Raises DataError where there is no such folder or no image.
    """
    folder = folder.absolute()
    _check_folder(folder, "--data")
    subfolders = [entry.name for entry in entries(folder) if entry.is_dir()]
    if subfolders and all(name.casefold() in SPLIT_NAMES for name in subfolders):
        named = [name for name in subfolders if SPLIT_NAMES[name.casefold()] == split]
        if len(named) != 1:
            raise DataError(
                f"{folder}: no single folder for {split} among {', '.join(sorted(subfolders))}",
                f"name the folder with the class folders: --data {quoted(folder / sorted(subfolders)[0])}",
            )
        folder /= named[0]
    tree = _read_tree(folder, "--data")
    if not any(tree.classes.values()):
        raise DataError(f"{folder}: no images", what_is_an_image())
    return {name: [(path, Path(file)) for path, file, _ in images] for name, images in tree.classes.items()}


def image_files(folder: Path) -> list[Path]:
    """All image files in a folder and below it, in natural order. Raises DataError where it cannot be read."""
    found = sorted(images_below(folder), key=lambda image: natural_order(image[0]))
    return [Path(file) for _, file in found]


def _roots(data: "Data", key: str) -> list[tuple[Split, Path, str]]:
    """The folders of each split that has some, training first, and the key that names each in the config."""
    named: dict[Split, str | None] = {"train": data.train, "validation": data.validation, "test": data.test}
    roots = [(split, Path(folder), f"data.{split}") for split, folder in named.items() if folder is not None]
    if data.folders and data.train is not None:
        raise DataError(
            "data.folder and data.train both name the training images", "keep one of them, and remove the other"
        )
    for named_folder in data.folders:
        folder = Path(named_folder)
        _check_folder(folder, key)
        for split, subfolder in (_split_folders(folder, key) or {"train": folder}).items():
            if named[split] is not None:
                raise DataError(
                    f"data.{split} is given, but data.folder has its own: {subfolder}",
                    f"remove data.{split}, or name the training images alone: {setting('data.train', folder)}",
                )
            roots.append((split, subfolder, key))
    if not any(split == "train" for split, _, _ in roots) and data.manifest is None:
        raise DataError(
            "no training images are named: neither data.folder nor data.train is set",
            "name a folder with one folder per class: --set data.folder=FOLDER",
        )
    for index, (split, folder, named_by) in enumerate(roots):
        for other_index, (other, outer, _) in enumerate(roots):
            if index != other_index and folder.resolve().is_relative_to(outer.resolve()):
                if split == other:
                    raise DataError(f"{named_by}: {folder} lies in {outer}", "name one of the two")
                raise DataError(
                    f"{named_by}: the {split} images {folder} lie among the {other} images {outer}",
                    "images to judge on must not be trained on: give every split a folder of its own",
                )
    return sorted(roots, key=lambda root: SPLITS.index(root[0]))


def _split_folders(folder: Path, key: str) -> dict[Split, Path]:
    """The folders `train`, `validation` and `test` in `folder`, or nothing where all its folders are classes."""
    found: dict[Split, Path] = {}
    others: list[str] = []
    for entry in sorted(entries(folder), key=lambda entry: natural_order(entry.name)):
        if not entry.is_dir():
            continue
        split = SPLIT_NAMES.get(entry.name.casefold())
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
            f"if it holds the training images, point there: {setting(key, found['train'])}; {classes_hint}",
        )
    return found


def _check_folder(folder: Path, key: str) -> None:
    if folder.is_dir():
        return
    layouts.refuse_archive(folder, key)
    if folder.exists():
        raise DataError(f"{key}: {folder}: a file, not a folder", f"name its folder: {setting(key, folder.parent)}")
    hint = "relative paths begin at the file that names them" if key.startswith("data.") else ""
    if folder.parent.is_dir():
        near = difflib.get_close_matches(folder.name, [e.name for e in entries(folder.parent) if e.is_dir()], 1)
        if near:
            hint = f"did you mean {setting(key, folder.parent / near[0])}"
    raise DataError(f"{key}: {folder}: no such folder", hint)


def _read_tree(folder: Path, key: str, label_from: str | None = None, prefix: str = "") -> _Tree:
    """All images of the class folders in `folder`; folders whose names are equal in NFC are one class.

    With `label_from` the class of every image below `folder` is what it captures. Paths begin with `prefix`.
    """
    _check_folder(folder, key)
    layouts.refuse_detection_set(folder)
    others: Counter[str] = Counter()
    loose: list[str] = []
    classes: dict[str, list[_Image]] = {}
    if label_from is not None:
        for path, file in images_below(folder, others):
            classes.setdefault(path, []).append((prefix + path, file, ""))
        classes = _labelled_by_rule(folder, classes, label_from)
    else:
        for entry in entries(folder):
            if entry.is_dir():
                name = nfc(entry.name)
                images = classes.setdefault(name, [])
                images += (
                    (f"{prefix}{name}/{path}", file, "") for path, file in images_below(Path(entry.path), others)
                )
            elif suffix_of(entry.name) in SUFFIXES:
                loose.append(entry.name)
            else:
                others[suffix_of(entry.name)] += 1
    if loose and not any(classes.values()):
        layouts.refuse_flat(folder, loose, key)
    if not any(classes.values()) and others:
        raise DataError(f"{folder}: no images, only {_kinds(others)}", what_is_an_image())
    remarks = []
    if label_from is None:
        below = {name: [path.removeprefix(prefix) for path, _, _ in images] for name, images in classes.items()}
        remarks += [("layout", text) for text in layouts.look_for_subjects(folder, below, key)]
    if loose:
        number = _count(len(loose), "image")
        remarks.append(("stray", f"{folder}: {number} outside of the class folders ignored, such as {min(loose)}"))
    if others:
        are = "files are not images and were" if others.total() > 1 else "file is not an image and was"
        remarks.append(("stray", f"{folder}: {others.total()} {are} ignored: {_kinds(others)}"))
    ordered = {name: sorted(classes[name]) for name in sorted(classes, key=natural_order)}
    return _Tree(folder, ordered, tuple(remarks))


def _labelled_by_rule(folder: Path, by_path: dict[str, list[_Image]], pattern: str) -> dict[str, list[_Image]]:
    search = re.compile(pattern).search
    classes: dict[str, list[_Image]] = {}
    unmatched = []
    for path, images in by_path.items():
        match = search(path)
        if match is None or not match[1]:
            unmatched.append(path)
        else:
            classes.setdefault(nfc(match[1]), []).extend(images)
    if unmatched:
        raise DataError(
            f"data.label_from: {pattern} finds no class in {len(unmatched):,} of {len(by_path):,} paths below "
            f"{folder}, such as {min(unmatched)}",
            "every image needs a class: widen the expression, which is searched for anywhere in such a path",
        )
    return classes


def _check_training(classes: dict[str, list[_Image]], place: Path, key: str) -> None:
    """Raise DataError where there is nothing to train on: no image, a level too high, one class."""
    filled = [name for name, images in classes.items() if images]
    if not filled:
        raise DataError(f"{place}: no images", what_is_an_image())
    if len(filled) == 1:
        deeper = layouts.class_folders_below([(path, file) for path, file, _ in classes[filled[0]]])
        if deeper and place.is_dir():
            raise DataError(
                f"{place}: its only folder is {filled[0]}; the class folders seem to lie deeper: "
                f"{_some(path.name for path in deeper)}",
                f"name the folder that holds them: {setting(key, deeper[0].parent)}",
            )
        raise DataError(
            f"{place}: only one class, {filled[0]}",
            "a classifier needs two or more: make a folder for each, with its images, such as "
            f"{quoted((place if place.is_dir() else place.parent) / 'other')} with pictures of anything else",
        )


def _check_empty(classes: dict[str, list[_Image]], place: Path, problems: Problems) -> None:
    empty = [name for name, images in classes.items() if not images]
    if empty:
        problems.meet(
            "empty_class",
            DataError(
                f"{place}: no image in {_count(len(empty), 'class folder')}: {_some(empty)}",
                "remove what is no class, or put images in",
            ),
        )


def _check_validation(
    given: dict[str, list[_Image]] | None, place: Path | None, data: "Data", problems: Problems
) -> None:
    """It is plain from names that no image would choose the model."""
    if given is not None and not any(given.values()):
        problems.meet(
            "no_validation",
            DataError(f"{place}: no images, and those of validation choose the best weights", what_is_an_image()),
        )
    if given is None and not data.split.validation:
        problems.meet(
            "no_validation",
            DataError(
                "no validation images: data.split.validation is 0%, and there is no folder of them",
                "they choose the best weights: set some aside, such as --set data.split.validation=15%",
            ),
        )


def _compare_classes(
    names: tuple[str, ...], classes: dict[str, list[_Image]], place: Path, split: Split, problems: Problems
) -> list[tuple[str, str]]:
    """A remark about classes that a split lacks; classes that training does not have are a problem."""
    extra = [name for name, images in classes.items() if images and name not in names]
    missing = [name for name in names if not classes.get(name)]
    if extra:
        lines = [f"{place}: {split} has classes that training lacks: {_some(extra)}"]
        lines += [f"  and lacks of training's: {_some(missing)}"] if missing else []
        near = [(name, match[0]) for name in extra if (match := difflib.get_close_matches(name, missing or names, 1))]
        hint = f"rename or remove these folders, or leave them out: {setting('data.classes.exclude', f'[{extra[0]}]')}"
        if near:
            hint = f"is {near[0][0]} the class {near[0][1]}? class folders must have the same names everywhere"
        problems.meet("class_sets", DataError("\n".join(lines), hint))
    return [("class_sets", f"{place}: no {split} images of {_some(missing)}")] if missing else []


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


def _some(names: Iterable[str], most: int = 10) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _kinds(others: Counter[str]) -> str:
    named = Counter({suffix or "without suffix": number for suffix, number in sorted(others.items(), reverse=True)})
    return ", ".join(f"{number} {suffix}" for suffix, number in named.most_common())
