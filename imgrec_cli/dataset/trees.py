"""Folders, shards and manifests → images by split and class, as they are named where they lie."""

import difflib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.dataset import layouts
from imgrec_cli.dataset.layouts import setting, what_is_an_image
from imgrec_cli.dataset.manifest import read_manifest
from imgrec_cli.dataset.sources import Sources, check_shards, inside
from imgrec_cli.dataset.walk import SPLIT_NAMES, SPLITS, Split, entries, natural_order, nfc
from imgrec_cli.errors import DataError
from imgrec_cli.storage import File, are_shards, expanded, is_url, located
from imgrec_cli.wording import count, some

if TYPE_CHECKING:  # config imports pydantic, and `imgrec evaluate` has to start without it
    from imgrec_cli.config.images import Data

Image = tuple[str, str, str]  # path, file, group


@dataclass(frozen=True, slots=True)
class Tree:
    """Images of one split from one place, such as a folder: name of the class → images in their fixed order."""

    place: File
    classes: dict[str, list[Image]]
    remarks: tuple[tuple[str, str], ...]


def find_trees(data: "Data", key: str) -> list[tuple[Split, Tree]]:
    """All images that a config names, by split; `key` is what `data.folder` was typed behind, for messages.

    Raises DataError, with what to do, for folders that cannot be meant.
    """
    trees = [*_folder_trees(data, key), *_manifest_trees(data)]
    _check_no_file_twice(trees)
    return trees


def _folder_trees(data: "Data", key: str) -> list[tuple[Split, Tree]]:
    """The trees of all folders that are named, in the order of the splits."""
    sources = Sources()
    roots = _roots(data, key, sources)
    shared = os.path.commonpath([_spelled(place) for _, place, _ in roots]) if len(data.folders) > 1 else None
    trees = []
    for split, place, named_by in roots:
        prefix = ""
        if shared is not None:
            prefix = nfc(os.path.relpath(_spelled(place), shared).replace(os.sep, "/")) + "/"
        trees.append((split, read_tree(place, named_by, data.label_from, prefix, sources)))
    return trees


def _spelled(place: File) -> str:
    """A place as a path, so that two can be compared: s3://photos/may as /s3/photos/may."""
    return str(place) if isinstance(place, Path) else "/" + place.replace("://", "/")


def _manifest_trees(data: "Data") -> list[tuple[Split, Tree]]:
    """The images of the manifest, a tree for each split; rows without a split are to be trained on or cut from."""
    if data.manifest is None:
        return []
    file = Path(data.manifest)
    rows, warnings = read_manifest(file)
    trees: dict[Split, Tree] = {}
    remarks = tuple(("stray", text) for text in warnings)
    for row in rows:
        split = row.split or "train"
        tree = trees.setdefault(split, Tree(file, {}, () if trees else remarks))
        tree.classes.setdefault(row.label, []).append((row.path, row.file, row.group))
    return [(split, trees[split]) for split in SPLITS if split in trees]


def _check_no_file_twice(trees: list[tuple[Split, Tree]]) -> None:
    """Raise DataError where a manifest lists an image that lies in one of the folders as well."""
    places = {tree.place for _, tree in trees}
    if len(places) < 2:
        return
    seen: dict[str, File] = {}
    for _, tree in trees:
        for images in tree.classes.values():
            for _, file, _ in images:
                first = seen.setdefault(file, tree.place)
                if first != tree.place:
                    raise DataError(
                        f"{file} is named twice: by {first} and by {tree.place}",
                        "take it out of the manifest, or name the manifest alone: what stands in it is all there is",
                    )


def _roots(data: "Data", key: str, sources: Sources) -> list[tuple[Split, File, str]]:
    """The places of each split that has some, training first, and the key that names each in the config."""
    named: dict[Split, str | None] = {"train": data.train, "validation": data.validation, "test": data.test}
    roots = [(split, _place(folder), f"data.{split}") for split, folder in named.items() if folder is not None]
    if data.folders and data.train is not None:
        raise DataError(
            "data.folder and data.train both name the training images", "keep one of them, and remove the other"
        )
    for named_folder in data.folders:
        folder = _place(named_folder)
        check_folder(folder, key)
        found = _split_folders(folder, key, sources)
        for split, subfolder in (
            {split: inside(folder, name) for split, name in found.items()} or {"train": folder}
        ).items():
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
            if index != other_index and _lies_in(folder, outer):
                if split == other:
                    raise DataError(f"{named_by}: {folder} lies in {outer}", "name one of the two")
                raise DataError(
                    f"{named_by}: the {split} images {folder} lie among the {other} images {outer}",
                    "images to judge on must not be trained on: give every split a folder of its own",
                )
    return sorted(roots, key=lambda root: SPLITS.index(root[0]))


def _place(named: str) -> File:
    return located(named.rstrip("/") if is_url(named) else named)


def _lies_in(place: File, outer: File) -> bool:
    """Whether a place is another one or lies in it, links followed."""
    if are_shards(str(place)) and are_shards(str(outer)):
        return not set(expanded(str(place))).isdisjoint(expanded(str(outer)))
    if isinstance(place, Path) and isinstance(outer, Path):
        return place.resolve().is_relative_to(outer.resolve())
    return f"{place}/".startswith(f"{outer}/")


def _split_folders(folder: File, key: str, sources: Sources) -> dict[Split, str]:
    """Names of the folders `train`, `validation`, `test` in `folder`, or nothing where all its folders are classes."""
    found: dict[Split, str] = {}
    others: list[str] = []
    for name in sorted(sources.subfolders(folder), key=natural_order):
        split = SPLIT_NAMES.get(name.casefold())
        if name.casefold() == "valid" and not sources.subfolders(inside(folder, name)):
            split = None  # a class: the other one is `invalid`
        if split is None:
            others.append(name)
        elif split in found:
            raise DataError(
                f"{folder}: two folders for {split}: {found[split]} and {name}",
                "keep one of them here, or name each split's folder by itself: data.train, data.validation, data.test",
            )
        else:
            found[split] = name
    if not found:
        return {}
    others = [other for other in others if sources.has_images(inside(folder, other))]
    classes_hint = "if all its folders are classes, name it as data.train in place of data.folder"
    if "train" not in found:
        raise DataError(
            f"{folder}: has {some(found.values())} but no train folder",
            f"put the class folders of the training images into one named train; {classes_hint}",
        )
    if others:
        raise DataError(
            f"{folder}: {found['train']} stands beside other folders with images: {some(others)}",
            f"if it holds the training images, point there: {setting(key, inside(folder, found['train']))}; "
            f"{classes_hint}",
        )
    return found


def check_folder(folder: File, key: str) -> None:
    if are_shards(str(folder)):
        check_shards(folder, key)
    if isinstance(folder, str) or folder.is_dir() or are_shards(str(folder)):
        return
    layouts.refuse_archive(folder, key)
    url = re.search(r"(?:^|[/\\])([a-z][a-z0-9+.-]+):[/\\]+(.+)", str(folder))
    if url is not None:
        raise DataError(
            f"{key}: {url[1]}://{url[2]}: a URL is named in a config, not here",
            f"write one with data: {{folder: {url[1]}://{url[2]}}}, and name that",
        )
    if folder.exists():
        raise DataError(f"{key}: {folder}: a file, not a folder", f"name its folder: {setting(key, folder.parent)}")
    hint = "relative paths begin at the file that names them" if key.startswith("data.") else ""
    if folder.parent.is_dir():
        near = difflib.get_close_matches(folder.name, [e.name for e in entries(folder.parent) if e.is_dir()], 1)
        if near:
            hint = f"did you mean {setting(key, folder.parent / near[0])}"
    raise DataError(f"{key}: {folder}: no such folder", hint)


def read_tree(
    place: File, key: str, label_from: str | None = None, prefix: str = "", sources: Sources | None = None
) -> Tree:
    """All images of the class folders in `place`; folders whose names are equal in NFC are one class.

    With `label_from` the class of every image below `place` is what it captures; shards may bring labels. Paths begin
    with `prefix`.
    """
    check_folder(place, key)
    if isinstance(place, Path) and place.is_dir():
        layouts.refuse_detection_set(place)
    found, in_shards = (sources or Sources()).found(place), are_shards(str(place))
    loose: list[str] = []
    classes: dict[str, list[Image]] = {}
    if label_from is not None:
        by_path: dict[str, list[Image]] = {}
        for path, file, _ in found.images:
            by_path.setdefault(path, []).append((prefix + path, file, ""))
        classes = _labelled_by_rule(place, by_path, label_from)
    else:
        classes = {nfc(name): [] for name in found.folders}
        for path, file, label in found.images:
            if not label and not in_shards and "/" in path:
                label = path.partition("/")[0]
            if label:
                classes.setdefault(label, []).append((prefix + path, file, ""))
            else:
                loose.append(path)
    if loose and in_shards:
        _refuse_without_label(place, loose, any(classes.values()))
    if loose and not any(classes.values()):
        layouts.refuse_flat(place, loose, key)
    if not any(classes.values()) and found.others:
        if found.others[".tar"]:
            layouts.refuse_folder_of_shards(place, Sources().shards(place), key)
        raise DataError(f"{place}: no images, only {_kinds(found.others)}", what_is_an_image())
    remarks = []
    if label_from is None and not in_shards:
        below = {name: [path.removeprefix(prefix) for path, _, _ in images] for name, images in classes.items()}
        remarks += [("layout", text) for text in layouts.look_for_subjects(place, below, key)]
    if loose:
        number = count(len(loose), "image")
        remarks.append(("stray", f"{place}: {number} outside of the class folders ignored, such as {min(loose)}"))
    if found.others:
        are = "files are not images and were" if found.others.total() > 1 else "file is not an image and was"
        remarks.append(("stray", f"{place}: {found.others.total()} {are} ignored: {_kinds(found.others)}"))
    ordered = {name: sorted(classes[name]) for name in sorted(classes, key=natural_order)}
    return Tree(place, ordered, tuple(remarks))


def _refuse_without_label(place: File, images: list[str], some_have: bool) -> None:
    others = "others have one" if some_have else "they lie in no folder of a class either"
    raise DataError(
        f"{place}: {count(len(images), 'image')} without KEY.cls or KEY.json with a label, such as {min(images)}; "
        f"{others}",
        "write a label beside every image, or take the class from their names: data.label_from",
    )


def _labelled_by_rule(folder: File, by_path: dict[str, list[Image]], pattern: str) -> dict[str, list[Image]]:
    search = re.compile(pattern).search
    classes: dict[str, list[Image]] = {}
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


def _kinds(others: Counter[str]) -> str:
    named = Counter({suffix or "without suffix": number for suffix, number in sorted(others.items(), reverse=True)})
    return ", ".join(f"{number} {suffix}" for suffix, number in named.most_common())
