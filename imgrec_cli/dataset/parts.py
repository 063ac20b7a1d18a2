"""A pack in parts: each of several processes decodes and keeps its own, and all know the facts of all images.

The image at place p of the listing is in part p modulo the number of parts, so that they are known before anything is
decoded. A part lies in the cache as a pack of its own. Rows of other processes' parts are decoded from their files when
somebody asks for them.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.dataset import cache
from imgrec_cli.dataset.digests import Files, readers
from imgrec_cli.dataset.near import SIDE, Directions, directions, near_by_direction
from imgrec_cli.dataset.pack import (
    DeepImageMet,
    Facts,
    Pack,
    Pixels,
    Progress,
    announced,
    as_row,
    build,
    distinct,
    examine,
    find_pack,
    find_survey,
    name_of,
    require_readable,
    take_survey,
    throttled,
)
from imgrec_cli.errors import InputError
from imgrec_cli.imaging import PixelSpec
from imgrec_cli.progress import Listener

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parts:
    """`own` of `count` parts are those of this process; each process has as many, in order. `exchange` gives what every
    process says, in their order, on all of them."""

    count: int
    own: range
    exchange: Callable[[bytes], list[bytes]]

    def own_among(self, places: Ints) -> NDArray[np.bool_]:
        """Which places of the listing are in parts of this process."""
        part = places % self.count
        found: NDArray[np.bool_] = (part >= self.own.start) & (part < self.own.stop)
        return found


@dataclass(frozen=True, slots=True)
class PartPixels:
    """Pixels uint8 [images, height, width, channels] by row, as an array that can be read but not changed.

    Row r is row `row_in_pack[r]` of `packs[pack_of[r]]`; where `pack_of` is -1 it is decoded from `paths[r]`, whose
    digest is `digests[r]`. Reading raises InputError where such a file has changed since.
    """

    paths: Sequence[str]
    digests: Sequence[str]
    spec: PixelSpec
    packs: "Sequence[Pixels | PartPixels]"
    pack_of: Ints
    row_in_pack: Ints

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), *self.spec.size, self.spec.channels

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.pack_of)

    def __getitem__(self, index: Any) -> Pixels:
        rows = np.arange(len(self))[index] if isinstance(index, slice) else np.asarray(index)
        flat = rows.ravel()
        found = np.empty((len(flat), *self.shape[1:]), np.uint8)
        pack_of = self.pack_of[flat]
        for number in np.unique(pack_of).tolist():
            here = np.flatnonzero(pack_of == number)
            wanted = flat[here]
            found[here] = self._decoded(wanted) if number < 0 else self.packs[number][self.row_in_pack[wanted]]
        return found.reshape(*rows.shape, *self.shape[1:])

    def _decoded(self, rows: Ints) -> Pixels:
        paths = [self.paths[row] for row in rows]
        with ThreadPoolExecutor(readers(paths)) as pool:
            examined = list(pool.map(lambda path: examine(path, self.spec), paths))
        found = []
        for row, path, (fact, pixels) in zip(rows, paths, examined, strict=True):
            if pixels is None or fact.digest != self.digests[row]:
                raise InputError(
                    f"{path}: not what it was when the images were listed: {fact.reason or 'its content has changed'}",
                    "put it back as it was, then go on with imgrec train --resume",
                )
            found.append(pixels)
        return np.stack(found)


def open_parts(
    files: Files, spec: PixelSpec, on_event: Listener, parts: Parts, *, eight_bit_only: bool = False
) -> Pack:
    """The pack of these files, of which each process finds or builds its own parts; all have to call.

    The facts and near duplicates are the same on all. Raises as `pack.open_pack` does: DataError and DeepImageMet on
    all processes, DiskSpaceError where the disk is too small.
    """
    whole = find_pack(files, spec)  # of a training that was alone
    own: list[Pack] = []
    mine: list[list[Facts]] | None = None
    try:
        if whole is None:
            own = _own_packs(files, spec, on_event, parts, eight_bit_only)
        mine = (
            [pack.facts for pack in own] if whole is None else [whole.facts[part :: parts.count] for part in parts.own]
        )
    except DeepImageMet:
        pass  # which the others have to hear of
    facts = _facts_of_all(parts, mine, len(files.paths))
    if not facts or (eight_bit_only and any(fact.largest is not None for fact in facts)):
        raise DeepImageMet
    require_readable(files, facts)
    places = np.array([place for place, fact in enumerate(facts) if not fact.reason], np.int64)
    pixels = _pixels(files, spec, parts, facts, places, whole, own)
    rows, looks = distinct(facts)

    def directions_of(rows: Ints) -> Directions:
        """Each process looks at its own rows."""
        here = parts.own_among(places[rows])
        seen, flat = directions(pixels[rows[here]])
        told = parts.exchange(seen.tobytes() + flat.tobytes())
        owner = places[rows] % parts.count // len(parts.own)
        every, every_flat = np.empty((len(rows), SIDE * SIDE), np.float32), np.empty(len(rows), bool)
        for process, answer in enumerate(told):
            of_it = np.flatnonzero(owner == process)
            end = len(of_it) * SIDE * SIDE * every.itemsize
            every[of_it] = np.frombuffer(answer[:end], np.float32).reshape(len(of_it), SIDE * SIDE)
            every_flat[of_it] = np.frombuffer(answer[end:], bool)
        return every, every_flat

    near = [(int(one), int(other)) for one, other in near_by_direction(directions_of, looks, rows)]
    return Pack(facts, pixels, near)


def find_survey_in_parts(files: Files, parts: Parts) -> bool:
    """Whether any process has a survey of a part: then some image is deep. All have to call."""
    known = any(find_survey(_of_part(files, parts, part)) is not None for part in parts.own)
    return any(parts.exchange(b"known" if known else b""))


def take_survey_in_parts(files: Files, on_event: Listener, parts: Parts) -> list[Facts]:
    """The facts of all files, each process reading those of its parts; all have to call."""
    mine = [take_survey(_of_part(files, parts, part), on_event) for part in parts.own]
    return _facts_of_all(parts, mine, len(files.paths))


def _of_part(files: Files, parts: Parts, part: int) -> Files:
    return Files(files.paths[part :: parts.count], files.source, f"part {part + 1} of {parts.count}")


def _own_packs(files: Files, spec: PixelSpec, on_event: Listener, parts: Parts, eight_bit_only: bool) -> list[Pack]:
    """A pack of each own part, found in the cache or built. Raises DiskSpaceError before the first where all that are
    missing do not fit."""
    own = [_of_part(files, parts, part) for part in parts.own]
    found = [find_pack(part, spec) for part in own]
    missing = [place for place, pack in enumerate(found) if pack is None]
    if missing:
        which = ", part " if len(missing) == 1 else ", parts "
        which += ", ".join(str(parts.own[place] + 1) for place in missing)
        count, done = sum(len(own[place].paths) for place in missing), 0
        task = announced(count, spec, f"{which} of {parts.count}", on_event)
        advance = throttled("packing", count, on_event)

        def after(done: int) -> Progress:
            return lambda images: advance(done + images)

        for place in missing:
            part = own[place]
            with cache.building(name_of(part, spec), on_event):
                found[place] = find_pack(part, spec) or build(part, spec, task, after(done), eight_bit_only)
            done += len(part.paths)
    return [pack for pack in found if pack is not None]


def _facts_of_all(parts: Parts, mine: list[list[Facts]] | None, count: int) -> list[Facts]:
    """The facts of all files in their order from those of the own parts; empty where a process says None."""
    said = None if mine is None else [list(map(as_row, facts)) for facts in mine]
    told = [json.loads(zlib.decompress(text)) for text in parts.exchange(zlib.compress(json.dumps(said).encode(), 1))]
    if None in told:
        return []
    found: list[Any] = [None] * count
    for part, rows in enumerate(chain.from_iterable(told)):
        found[part :: parts.count] = [Facts(*row) for row in rows]
    return found


def _pixels(
    files: Files,
    spec: PixelSpec,
    parts: Parts,
    facts: list[Facts],
    places: Ints,
    whole: Pack | None,
    own: list[Pack],
) -> Pixels | PartPixels:
    """Pixels by row: those of the whole pack, or of the own parts' packs."""
    if whole is not None and [fact.digest for fact in whole.facts if not fact.reason] == [
        facts[place].digest for place in places
    ]:
        return whole.pixels
    pack_of, row_in_pack = np.full(len(places), -1), np.zeros(len(places), np.int64)
    part_of = places % parts.count
    packs = [whole.pixels] if whole is not None else [pack.pixels for pack in own]
    if whole is not None:  # another process could not read what it holds
        here = np.flatnonzero(parts.own_among(places))
        rows = np.cumsum([not fact.reason for fact in whole.facts]) - 1
        pack_of[here], row_in_pack[here] = 0, rows[places[here]]
    else:
        for number, part in enumerate(parts.own):
            here = np.flatnonzero(part_of == part)
            pack_of[here], row_in_pack[here] = number, np.arange(len(here))
    return PartPixels(
        [files.paths[place] for place in places],
        [facts[place].digest for place in places],
        spec,
        packs,
        pack_of,
        row_in_pack,
    )
