"""Folders and manifests → a list of labelled image files; no image is opened, nothing is changed."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.dataset import layouts
from imgrec_cli.dataset.classes import class_of
from imgrec_cli.dataset.layouts import setting, what_is_an_image
from imgrec_cli.dataset.sources import Sources, folder_of, inside
from imgrec_cli.dataset.trees import Image, Tree, check_folder, find_trees, read_tree
from imgrec_cli.dataset.walk import (
    SPLIT_NAMES,
    SPLITS,
    Split,
    natural_order,
    nfc,
)
from imgrec_cli.errors import DataError, quoted
from imgrec_cli.storage import File, is_url
from imgrec_cli.wording import count, some

if TYPE_CHECKING:  # config imports pydantic, and `imgrec evaluate` has to start without it
    from imgrec_cli.config.images import Data


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
    folders: tuple[File, ...]
    remarks: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(text for _, text in self.remarks)

    def shown(self) -> list[str]:
        """A short name for every example: its file's path below what all folders share, with `/` and in NFC."""
        bases = [str(folder_of(folder)) for folder in self.folders]
        try:
            base = bases[0] if len(set(bases)) == 1 else os.path.commonpath(bases)
        except ValueError:  # two drives of Windows, a folder and a URL
            return [example.path for example in self.examples]
        begin = base.rstrip("/" + os.sep) + ("/" if is_url(base) else os.sep)
        return [
            nfc(file.removeprefix(begin) if file.startswith(begin) else os.path.relpath(file, base)).replace(
                os.sep, "/"
            )
            for file in (example.file for example in self.examples)
        ]


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

    `key` is the config key or option by which the user named the folder; used in messages. Raises DataError, with what
    to do, for folders that cannot be meant, and where no image could choose the model; `problems` may take up some of
    them.
    """
    problems = problems or Problems()
    trees = find_trees(data, key)
    raw = {name for _, tree in trees for name in tree.classes}
    named = class_of(raw, data.classes)
    trees = [(split, Tree(tree.place, _renamed(tree.classes, named), tree.remarks)) for split, tree in trees]
    by_split: dict[Split, dict[str, list[Image]]] = {}
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


def _renamed(classes: dict[str, list[Image]], named: dict[str, str | None]) -> dict[str, list[Image]]:
    renamed: dict[str, list[Image]] = {}
    for name, images in classes.items():
        target = named[name]
        if target is not None:
            renamed.setdefault(target, []).extend(images)
    return renamed


def scan_labelled(folder: Path, split: str = "test") -> dict[str, list[tuple[str, Path]]]:
    """Class name → (path, file) of the images of a folder, or of shards, to judge on, classes in natural order.

    Where all its folders are named for splits, such as `train` and `test`, the one of `split` is taken. A class folder
    may be empty. Raises DataError where there is no such folder or no image.
    """
    folder = folder.absolute()
    check_folder(folder, "--data")
    subfolders = Sources().subfolders(folder)
    if subfolders and all(name.casefold() in SPLIT_NAMES for name in subfolders):
        named = [name for name in subfolders if SPLIT_NAMES[name.casefold()] == split]
        if len(named) != 1:
            raise DataError(
                f"{folder}: no single folder for {split} among {', '.join(sorted(subfolders))}",
                f"name the folder with the class folders: --data {quoted(folder / sorted(subfolders)[0])}",
            )
        folder /= named[0]
    tree = read_tree(folder, "--data")
    if not any(tree.classes.values()):
        raise DataError(f"{folder}: no images", what_is_an_image())
    return {name: [(path, Path(file)) for path, file, _ in images] for name, images in tree.classes.items()}


def _check_training(classes: dict[str, list[Image]], place: File, key: str) -> None:
    """Raise DataError where there is nothing to train on: no image, a level too high, one class."""
    filled = [name for name, images in classes.items() if images]
    if not filled:
        raise DataError(f"{place}: no images", what_is_an_image())
    if len(filled) == 1:
        deeper = layouts.class_folders_below([(path, file) for path, file, _ in classes[filled[0]]])
        if deeper and isinstance(place, Path) and place.is_dir():
            raise DataError(
                f"{place}: its only folder is {filled[0]}; the class folders seem to lie deeper: "
                f"{some(path.name for path in deeper)}",
                f"name the folder that holds them: {setting(key, deeper[0].parent)}",
            )
        raise DataError(
            f"{place}: only one class, {filled[0]}",
            "a classifier needs two or more: make a folder for each, with its images, such as "
            f"{quoted(inside(folder_of(place), 'other'))} with pictures of anything else",
        )


def _check_empty(classes: dict[str, list[Image]], place: File, problems: Problems) -> None:
    empty = [name for name, images in classes.items() if not images]
    if empty:
        problems.meet(
            "empty_class",
            DataError(
                f"{place}: no image in {count(len(empty), 'class folder')}: {some(empty)}",
                "remove what is no class, or put images in",
            ),
        )


def _check_validation(
    given: dict[str, list[Image]] | None, place: File | None, data: "Data", problems: Problems
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
    names: tuple[str, ...], classes: dict[str, list[Image]], place: File, split: Split, problems: Problems
) -> list[tuple[str, str]]:
    """A remark about classes that a split lacks; classes that training does not have are a problem."""
    extra = [name for name, images in classes.items() if images and name not in names]
    missing = [name for name in names if not classes.get(name)]
    if extra:
        lines = [f"{place}: {split} has classes that training lacks: {some(extra)}"]
        lines += [f"  and lacks of training's: {some(missing)}"] if missing else []
        near = [(name, match[0]) for name in extra if (match := difflib.get_close_matches(name, missing or names, 1))]
        hint = f"rename or remove these folders, or leave them out: {setting('data.classes.exclude', f'[{extra[0]}]')}"
        if near:
            hint = f"is {near[0][0]} the class {near[0][1]}? class folders must have the same names everywhere"
        problems.meet("class_sets", DataError("\n".join(lines), hint))
    return [("class_sets", f"{place}: no {split} images of {some(missing)}")] if missing else []
