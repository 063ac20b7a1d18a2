"""Image files → one memory-mapped uint8 array in the cache, each file decoded once, in parallel.

A pack is named by what it holds: the content of every file in order, the pixels asked for, and the versions of this
format and of Pillow. The same folder, copied or touched, finds its pack again; a changed file makes a new one.
"""

import errno
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from imgrec_cli.atomic import replacing
from imgrec_cli.dataset import cache
from imgrec_cli.dataset.cache import PARTIAL, PIXELS, RECORDS
from imgrec_cli.dataset.digests import Files, digest_of_stream, digest_of_texts, readers
from imgrec_cli.dataset.near import hashes, near_duplicates
from imgrec_cli.errors import BadImageError, DataError, DiskSpaceError, InputError
from imgrec_cli.imaging import PixelSpec, decode, open_file, survey
from imgrec_cli.machine import available_cores, cache_subfolder
from imgrec_cli.progress import Advance, Listener, Note, readable_size
from imgrec_cli.storage import located

if TYPE_CHECKING:
    from imgrec_cli.dataset.parts import PartPixels

FORMAT = 4

# Files this small are decoded in less time than threads need to pass the interpreter lock around: 28 × 28 PNGs on two
# cores take 50 µs each on one thread and 110 µs on two.
_SMALL_FILE_BYTES = 8192
_BATCH_IMAGES = 16
_BATCH_BYTES = 1 << 22
_ADVANCE_SECONDS = 0.1

Pixels = NDArray[np.uint8]
Progress = Callable[[int], None]  # with the number of images done


@dataclass(frozen=True, slots=True)
class Facts:
    """What one file holds.

    `digest` is the BLAKE2b of its bytes, empty where they cannot be read, `identity` equal for equal upright pictures,
    `reason` why it is no image, empty for an image, `largest` the largest raw value of a deep image, else None.
    `may_pass` is true where the reason may be gone the next time: a read error, too little memory. `bytes` is the size
    of the file; `format`, `mode`, `height` and `width` are what its header says (imaging.Form). `look` is the
    perceptual hash of its pixels (dataset.near) in hexadecimal digits, where they were packed.
    """

    digest: str
    identity: str
    reason: str
    largest: int | float | None
    may_pass: bool = False
    bytes: int = 0
    format: str = ""
    mode: str = ""
    height: int = 0
    width: int = 0
    look: str = ""


as_row = attrgetter(*Facts.__match_args__)  # as dataclasses.astuple, which copies deeply: 46 µs for each file


@dataclass(frozen=True, slots=True)
class Pack:
    """`facts` of every file in order; `pixels` uint8 [images, height, width, channels] of those without a `reason`.

    `near` are pairs of rows whose pictures are almost the same; of equal pictures only the first row is in it.
    """

    facts: list[Facts]
    pixels: "Pixels | PartPixels"
    near: list[tuple[int, int]]


class DeepImageMet(Exception):
    """A pack of 8-bit images was asked for, and not all are."""


def open_pack(files: Files, spec: PixelSpec, on_event: Listener, *, eight_bit_only: bool = False) -> Pack:
    """The pack of these files, found in the cache or built.

    Two runs that want the same pack build it once. Memory use does not grow with the number of images. Raises
    DiskSpaceError where the cache's disk is too small, DataError where no file is an image, DeepImageMet at the first
    deep image where `eight_bit_only`.
    """
    pack = find_pack(files, spec)
    if pack is None:
        name = name_of(files, spec)
        with cache.building(name, on_event):
            pack = find_pack(files, spec)  # the run that was waited for has built it
            if pack is None:
                cache.remove_pack(_partial(name))  # or it was killed
                task = announced(len(files.paths), spec, "", on_event)
                pack = build(files, spec, task, throttled("packing", len(files.paths), on_event), eight_bit_only)
    if eight_bit_only and any(facts.largest is not None for facts in pack.facts):
        raise DeepImageMet
    return pack


def find_survey(files: Files) -> list[Facts] | None:
    """Facts of these files from an earlier `take_survey`, or None."""
    digests = files.known_digests()
    if digests is None:
        return None
    try:
        rows = json.loads(_survey_file(digests).read_text(encoding="utf-8"))
        facts = [Facts(*row) for row in rows]
    except (OSError, ValueError, TypeError):
        return None
    return facts if _still_true(files, facts, None) else None


def take_survey(files: Files, on_event: Listener) -> list[Facts]:
    """Read every file for its facts alone: what has to be known before a range of raw values can be chosen."""
    with cache.building(digest_of_texts(files.source, "survey"), on_event):
        known = find_survey(files)
        if known is not None:
            return known
        on_event(Note(f"surveying {len(files.paths):,} images for the range of their values"))
        advance = throttled("surveying", len(files.paths), on_event)
        facts: list[Facts] = []
        with closing(_examined(files, None)) as batches:
            for batch in batches:
                facts += (result for result, _ in batch)
                advance(len(facts))
        with suppress(OSError), replacing(_survey_file([fact.digest for fact in facts])) as stream:
            stream.write(json.dumps(list(map(as_row, facts))).encode())
        files.remember([fact.digest for fact in facts])
        return facts


def find_pack(files: Files, spec: PixelSpec) -> Pack | None:
    """The pack of these files in the cache, or None."""
    digests = files.known_digests()
    pack = None if digests is None else _read_pack(cache_subfolder("packs") / _key(digests, spec, files.part), spec)
    return pack if pack is not None and _still_true(files, pack.facts, spec) else None


def _still_true(files: Files, facts: list[Facts], spec: PixelSpec | None) -> bool:
    """Whether the files that failed for a reason that may pass still do; only these are read."""
    doubtful = (path for path, fact in zip(files.paths, facts, strict=True) if fact.may_pass)
    return all(examine(path, spec)[0].reason for path in doubtful)


def _read_pack(folder: Path, spec: PixelSpec) -> Pack | None:
    """The pack in `folder`, or None where it is missing or damaged."""
    try:
        records = json.loads((folder / RECORDS).read_text(encoding="utf-8"))
        facts = [Facts(*row) for row in records["files"]]
        shape = (sum(not fact.reason for fact in facts), *spec.size, spec.channels)
        if (folder / PIXELS).stat().st_size != int(np.prod(shape)):
            return None
        pixels: Pixels = np.zeros(shape, np.uint8)  # of no image, which a part may have, there is no map
        if shape[0]:
            pixels = np.memmap(folder / PIXELS, np.uint8, "r", shape=shape)
        near = [(int(one), int(other)) for one, other in records["near"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    with suppress(OSError):
        os.utime(folder / RECORDS)  # the time of its last use
    return Pack(facts, pixels, near)


def name_of(files: Files, spec: PixelSpec) -> str:
    """What a pack is called while it is built, when its content is not known yet."""
    return digest_of_texts(files.source, json.dumps(asdict(spec)))


def announced(count: int, spec: PixelSpec, which: str, on_event: Listener) -> str:
    """Say that so many images will be packed, `which` says which, and return these words for later messages.

    Half-built packs of killed runs are removed. Raises DiskSpaceError where the cache's disk is too small.
    """
    cache.remove_abandoned()
    packs = cache_subfolder("packs")
    needed, free = count * spec.size[0] * spec.size[1] * spec.channels, shutil.disk_usage(packs).free
    task = f"packing {count:,} images of {spec.size[0]}×{spec.size[1]}×{spec.channels}{which}"
    if needed > free:
        raise DiskSpaceError(
            f"{task} needs {readable_size(needed)}, and {readable_size(free)} are free in {packs}", cache.LARGER_DISK
        )
    on_event(Note(f"{task}: {readable_size(needed)} in {packs}"))
    return f"{task}, which needs {readable_size(needed)}"


def build(files: Files, spec: PixelSpec, task: str, advance: Progress, eight_bit_only: bool) -> Pack:
    """Decode all files into a new pack, whose name's lock is held; `task` says in errors what was done.

    Written through a file, not a map: a full disk kills who writes to a map. Raises as `open_pack`, but of a part no
    image has to be readable, and near duplicates are not looked for in one.
    """
    packs, partial = cache_subfolder("packs"), _partial(name_of(files, spec))
    facts: list[Facts] = []
    try:
        partial.mkdir(exist_ok=True)
        with (partial / PIXELS).open("wb") as stream:
            with closing(_examined(files, spec)) as batches:
                for batch in batches:
                    for fact, pixels in batch:
                        if eight_bit_only and fact.largest is not None:
                            raise DeepImageMet
                        facts.append(fact)
                        if pixels is not None:
                            stream.write(pixels.data)
                    advance(len(facts))
            if not files.part:
                require_readable(files, facts)
            stream.flush()
            os.fsync(stream.fileno())
        near = [] if files.part else _near_pairs(facts, partial / PIXELS, spec)
        with (partial / RECORDS).open("w", encoding="utf-8") as records:
            rows = list(map(as_row, facts))
            json.dump({"source": files.source, "spec": asdict(spec), "files": rows, "near": near}, records)
            records.flush()
            os.fsync(records.fileno())
        digests = [fact.digest for fact in facts]
        final = packs / _key(digests, spec, files.part)
        files.remember(digests)
        pack = _read_pack(final, spec)  # made from the same images in another folder
        if pack is None or len(pack.pixels) < sum(not fact.reason for fact in facts):
            cache.remove_pack(final)  # damaged, or made when fewer of them could be read
            with suppress(OSError):  # another folder's was finished just now
                final.mkdir(exist_ok=True)  # a file browser may have left something in it
                for part in (PIXELS, RECORDS):
                    (partial / part).replace(final / part)
            pack = _read_pack(final, spec)
        if pack is None:
            raise InputError(f"{final}: this pack of images vanished while it was made", "start again")
        return pack
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskSpaceError(f"{packs}: the disk became full while {task}", cache.LARGER_DISK) from error
        raise
    finally:
        cache.remove_pack(partial)


def require_readable(files: Files, facts: Sequence[Facts]) -> None:
    """Raise DataError where no file is an image."""
    if all(fact.reason for fact in facts):
        raise DataError(f"none of the {len(facts):,} images can be read: {files.paths[0]}: {facts[0].reason}")


def distinct(facts: Sequence[Facts]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Rows int64 [N] of the pack that show different pictures, of equal ones the first, and their hashes uint64 [N]."""
    readable = [fact for fact in facts if not fact.reason]
    first: dict[str, int] = {}
    for row, fact in enumerate(readable):
        first.setdefault(fact.identity, row)
    rows = np.array(sorted(first.values()), np.int64)
    return rows, np.array([int(readable[row].look, 16) for row in rows], np.uint64)


def _near_pairs(facts: list[Facts], pixels: Path, spec: PixelSpec) -> list[tuple[int, int]]:
    """Pairs of rows of almost the same picture, apart from equal ones; found once, while the pack is made."""
    rows, looks = distinct(facts)
    shape = (sum(not fact.reason for fact in facts), *spec.size, spec.channels)
    written = np.memmap(pixels, np.uint8, "r", shape=shape)
    return [(int(one), int(other)) for one, other in near_duplicates(written, looks, rows)]


def _examined(files: Files, spec: PixelSpec | None) -> Generator[list[tuple[Facts, Pixels | None]], None, None]:
    """Facts and pixels of all files in their order, in batches, decoded a few batches ahead on all cores."""
    paths, workers = files.paths, readers(files.paths)
    image_bytes = 1 if spec is None else spec.size[0] * spec.size[1] * spec.channels
    size = max(1, min(_BATCH_IMAGES, _BATCH_BYTES // image_bytes))

    def examine_all(batch: Sequence[str]) -> list[tuple[Facts, Pixels | None]]:
        return _with_looks([examine(path, spec) for path in batch])

    batches = (paths[start : start + size] for start in range(0, len(paths), size))
    if files.mean_bytes < _SMALL_FILE_BYTES and workers == available_cores():
        yield from map(examine_all, batches)
        return
    # OpenBLAS's own threads would wait in a loop for the next matrix product, on cores that decode
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[list[tuple[Facts, Pixels | None]]]] = deque()
        for batch in batches:
            ahead.append(pool.submit(examine_all, batch))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _with_looks(examined: list[tuple[Facts, Pixels | None]]) -> list[tuple[Facts, Pixels | None]]:
    """With the hashes of all pictures of a batch, which are cheap together."""
    pictures = [pixels for _, pixels in examined if pixels is not None]
    looks = iter(hashes(np.stack(pictures)) if pictures else ())
    return [
        (fact if pixels is None else replace(fact, look=f"{next(looks):016x}"), pixels) for fact, pixels in examined
    ]


def examine(path: str, spec: PixelSpec | None) -> tuple[Facts, Pixels | None]:
    """What one file holds, without its hash, and its pixels where it is an image and some are asked for."""
    digest, size = "", 0
    try:
        with open_file(located(path)) as stream:
            digest = digest_of_stream(stream)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            if spec is None:
                identity, largest, form = survey(stream)
                pixels = None
            else:
                decoded = decode(stream, spec)
                identity, largest, form, pixels = decoded.identity, decoded.largest, decoded.form, decoded.pixels
            header = (form.format, form.mode, form.height, form.width)
            return Facts(digest, identity.hex(), "", largest, False, size, *header), pixels
    except BadImageError as error:
        return Facts(digest, "", error.message, None, _may_pass(error.__cause__), size), None
    except OSError as error:
        return Facts(digest, "", error.strerror or str(error), None, _may_pass(error), size), None


def _may_pass(error: BaseException | None) -> bool:
    """Whether the machine failed and not the picture: of Pillow's own errors none has a number."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)


def _partial(name: str) -> Path:
    return cache_subfolder("packs") / f"{name}{PARTIAL}"


def _key(digests: Sequence[str], spec: PixelSpec | None, part: str = "") -> str:
    pixels = None if spec is None else asdict(spec)
    made_as = [FORMAT, PIL.__version__, pixels, *(["part"] if part else [])]  # which knows of no near duplicates
    return digest_of_texts(json.dumps(made_as, sort_keys=True), *digests)


def _survey_file(digests: Sequence[str]) -> Path:
    return cache_subfolder("surveys") / f"{_key(digests, None)}.json"


def throttled(stage: str, total: int, on_event: Listener) -> Progress:
    """Reports progress at most ten times a second, and the end."""
    last = 0.0

    def advance(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _ADVANCE_SECONDS or done == total:
            last = now
            on_event(Advance(stage, done, total))

    return advance
