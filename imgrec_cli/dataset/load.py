"""Config → data set: scan, pack, correct and split in order, with every image that had to be left out."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.dataset.audit import Finding, audit, leaks, summary_line
from imgrec_cli.dataset.collection import Collection
from imgrec_cli.dataset.corrections import Corrected, correct
from imgrec_cli.dataset.digests import Files
from imgrec_cli.dataset.divide import assigned_splits, groups_by_config, thin_splits
from imgrec_cli.dataset.pack import DeepImageMet, Facts, Pack, find_survey, open_pack, take_survey
from imgrec_cli.dataset.parts import PartPixels, Parts, find_survey_in_parts, open_parts, take_survey_in_parts
from imgrec_cli.dataset.scan import Example, Listing, scan
from imgrec_cli.dataset.walk import SPLITS
from imgrec_cli.errors import DataError
from imgrec_cli.imaging import PixelSpec
from imgrec_cli.progress import Listener, Note, Warn, ignore

if TYPE_CHECKING:
    from imgrec_cli.config.images import Data, Image

AUTO_BITS = (8, 10, 12, 14, 16)
_NAMED = 10  # skipped images named in a warning
_BLOCK = 256  # images read at once from the pack


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image file that is not used, and why: it cannot be read, or it was to be left out."""

    file: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """All images of a run, with their classes and splits.

    `pixels` is uint8 [images, height, width, channels], 0 to 255, memory-mapped and read-only; `examples` name its
    rows. `digests` are the BLAKE2b of the files' bytes, `places` int64 those in the listing, by row. `parts` are those
    that this process packs where several share the work. `fingerprint` is equal for equal splits of equal files.
    `left_out` are the names of folders or labels that the config leaves out. `identities` by row are equal for equal
    pictures, `decided` are the rows whose label somebody has looked at; `shown` are short names and `groups` what must
    stay together, both by example. `findings` are what may be wrong with the collection, and
    `found_names[place]` is the short name of the image that a finding's place means.
    """

    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    pixels: NDArray[np.uint8] | PartPixels
    spec: PixelSpec
    skipped: tuple[Skipped, ...]
    digests: tuple[str, ...]
    fingerprint: str
    places: NDArray[np.int64]
    parts: Parts | None = None
    left_out: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    decided: frozenset[int] = frozenset()
    shown: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    findings: tuple[Finding, ...] = ()
    found_names: tuple[str, ...] = ()

    def rows(self, split: str) -> NDArray[np.int64]:
        """Rows int64 [images] of a split's images in `pixels`."""
        return np.array([example.row for example in self.examples if example.split == split], np.int64)

    def labels(self, split: str) -> NDArray[np.int64]:
        """Class indices int64 [images] of a split's images, in the order of `rows`."""
        return np.array([example.label for example in self.examples if example.split == split], np.int64)

    def digest(self, example: Example) -> str:
        """The BLAKE2b of an example's file, 32 hexadecimal digits."""
        return self.digests[example.row]

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel over the training pixels, in units of the 0 to 1 range. Processes
        that share the work count each its own, and all have to call."""
        counts = np.zeros((self.spec.channels, 256), np.int64)
        rows = self.rows("train")
        if self.parts is not None:
            rows = rows[self.parts.own_among(self.places[rows])]
        for start in range(0, len(rows), _BLOCK):
            block = self.pixels[rows[start : start + _BLOCK]]
            for channel, histogram in enumerate(counts):
                histogram += np.bincount(block[..., channel].ravel(), minlength=256)
        if self.parts is not None:
            told = [np.frombuffer(answer, np.int64) for answer in self.parts.exchange(counts.tobytes())]
            counts = np.sum(told, axis=0).reshape(counts.shape)
        values = np.arange(256) / 255
        shares = counts / counts.sum(axis=1, keepdims=True)
        mean = shares @ values
        deviation = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
        # Pictures of one flat value have no deviation to divide by; one gray level stands for it.
        return tuple(mean.tolist()), tuple(np.maximum(deviation, 1 / 255).tolist())


def plan(listing: Listing, data: "Data", seed: int) -> tuple[tuple[Example, ...], list[str]]:
    """The examples with their splits as far as names tell, and warnings about classes that could not be divided.

    `load_dataset` divides otherwise where images are equal or cannot be read. Raises its DataErrors.
    """
    unseen = [Facts("", "", "", None)] * len(listing.examples)
    corrected = correct(listing, [""] * len(unseen), data)
    assigned = assigned_splits(corrected, unseen, data, seed)
    examples = tuple(
        replace(corrected.listing.examples[place], split=split, row=row)
        for row, (place, split) in enumerate(assigned.items())
    )
    return examples, thin_splits(corrected.listing, examples, data)


def collect(
    data: "Data",
    image: "Image",
    seed: int,
    on_event: Listener = ignore,
    listing: Listing | None = None,
    parts: Parts | None = None,
) -> Collection:
    """Find and decode the images that a config names, and apply its corrections; the paths in `data` are absolute.
    Processes that share the work have `parts`."""
    listing = scan(data) if listing is None else listing
    if data.group is not None:  # a wrong expression is told before anything is decoded
        groups_by_config([example for example in listing.examples if example.split == "train"], data)
    pack, spec = _packed(listing, data, image, seed, on_event, parts)
    corrected = correct(listing, [fact.digest for fact in pack.facts], data)
    return Collection(corrected, pack, spec, listing.shown())


def load_dataset(
    data: "Data",
    image: "Image",
    seed: int,
    on_event: Listener = ignore,
    listing: Listing | None = None,
    parts: Parts | None = None,
) -> Dataset:
    """Find, decode, correct and split the images that a config names; the paths in `data` are absolute.

    `listing` is what `scan` gives for `data`, where it is known already. With `parts` several processes share the work,
    and get equal data sets but for the pixels that lie here. Images that cannot be read are left out,
    listed in `skipped` and told as a warning, or end it, as `data` says; so do pictures in two given splits. Raises
    DataError for folders that cannot be trained on, DiskSpaceError where the pack does not fit.
    """
    listing = scan(data) if listing is None else listing
    for warning in listing.warnings:
        on_event(Warn(warning))
    found = collect(data, image, seed, on_event, listing, parts)
    corrected, facts, listing = found.corrected, found.facts, found.listing
    unreadable = tuple(
        Skipped(example.file, example.path, fact.reason)
        for example, fact in zip(listing.examples, facts, strict=True)
        if fact.reason
    )
    if unreadable and data.on_bad_image == "stop":
        raise DataError(
            _skipped_text(unreadable, "ended the run"),
            "replace them, or leave them out: --set data.on_bad_image=skip",
        )
    if unreadable:
        on_event(Warn(_skipped_text(unreadable, "left out")))
    for event in _told(corrected, data):
        on_event(event)
    leaked = _leaked(found, data, on_event)
    assigned = assigned_splits(corrected, facts, data, seed, leaked)
    rows = found.rows
    examples = tuple(
        replace(listing.examples[place], split=split, row=rows[place]) for place, split in assigned.items()
    )
    for warning in thin_splits(listing, examples, data):
        on_event(Warn(warning))
    findings = audit(found, {place: example.split for place, example in zip(assigned, examples, strict=True)}, data)
    digests = tuple(fact.digest for fact in facts if not fact.reason)
    groups = groups_by_config(examples, data)
    left_out = [(place, "left out by a correction") for place in sorted(corrected.excluded)]
    left_out += [(place, "also among the images that judge or choose the model") for place in sorted(leaked)]
    dataset = Dataset(
        class_names=listing.class_names,
        examples=examples,
        pixels=found.pack.pixels,
        spec=found.spec,
        skipped=(
            *unreadable,
            *(Skipped(listing.examples[place].file, listing.examples[place].path, why) for place, why in left_out),
        ),
        digests=digests,
        fingerprint=_fingerprint(listing.class_names, examples, digests),
        places=np.array(list(rows), np.int64),
        parts=parts,
        left_out=listing.left_out,
        identities=tuple(fact.identity for fact in facts if not fact.reason),
        decided=frozenset(rows[place] for place in corrected.decided if place in rows),
        shown=tuple(found.shown[place] for place in assigned),
        groups=None if groups is None else tuple(groups),
        findings=tuple(findings),
        found_names=tuple(found.shown),
    )
    counts = ", ".join(f"{len(dataset.rows(split)):,} {split}" for split in SPLITS)
    on_event(Note(f"{len(examples):,} images in {len(listing.class_names)} classes: {counts}"))
    summary = summary_line(findings)
    if summary:
        on_event(Warn(summary))
    return dataset


def _told(corrected: Corrected, data: "Data") -> list[Note | Warn]:
    """What the corrections did, and which of them could not be applied."""
    if data.corrections is None:
        return []
    left_out = "1 image" if len(corrected.excluded) == 1 else f"{len(corrected.excluded):,} images"
    done = f"{left_out} left out and {corrected.relabelled:,} relabelled"
    told: list[Note | Warn] = [Note(f"corrections: {done} by {data.corrections}")]
    for paths, why in (
        (corrected.changed, "the picture is another one since: not applied, look at it again"),
        (corrected.missing, "there is no such image among those used"),
    ):
        if paths:
            more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
            told.append(Warn(f"{data.corrections}: {why}: {', '.join(paths[:_NAMED])}{more}"))
    return told


def _leaked(found: Collection, data: "Data", on_event: Listener) -> set[int]:
    """Places of the images that are left out because the same picture judges or chooses the model.

    Raises DataError where pictures in two given splits are to end the run, which they do by default.
    """
    groups = leaks(found.listing, found.facts, found.corrected.excluded)
    if not groups:
        return set()
    shown = [[found.shown[place] for place in places] for places in groups]
    text = f"{len(groups):,} pictures stand in two splits, such as {' and '.join(shown[0][:3])}"
    if len(groups) == 1:
        text = f"one picture stands in two splits: {' and '.join(shown[0][:3])}"
    if data.on_leak == "stop":
        raise DataError(
            f"{text}; what was trained on cannot judge",
            "leave the copies among the training images out: --set data.on_leak=skip\n"
            "all of them are shown by imgrec data check",
        )
    if data.on_leak == "keep":
        on_event(Warn(f"{text}; kept, as data.on_leak says"))
        return set()
    # the split that is nearest to the end keeps the picture
    order = {split: rank for rank, split in enumerate(SPLITS)}
    out = set()
    for places in groups:
        last = max(order[found.listing.examples[place].split] for place in places)
        out |= {place for place in places if order[found.listing.examples[place].split] < last}
    on_event(Warn(f"{text}; {len(out):,} copies left out of training or validation, as data.on_leak says"))
    return out


def _packed(
    listing: Listing, data: "Data", image: "Image", seed: int, on_event: Listener, parts: Parts | None
) -> tuple[Pack, PixelSpec]:
    """The pack, and what its pixels are, with the range resolved.

    Under `auto` the images are taken for 8-bit ones until a deep image is met: then all are surveyed, because the range
    follows from the training images, and which these are follows from all.
    """

    def opened(spec: PixelSpec, eight_bit_only: bool) -> Pack:
        if parts is None:
            return open_pack(files, spec, on_event, eight_bit_only=eight_bit_only)
        return open_parts(files, spec, on_event, parts, eight_bit_only=eight_bit_only)

    files = Files([example.file for example in listing.examples], "; ".join(map(str, listing.folders)))
    auto = image.range == "auto"
    if not (auto and (find_survey(files) is not None if parts is None else find_survey_in_parts(files, parts))):
        low_high = (0.0, 255.0) if image.range == "auto" else (float(image.range[0]), float(image.range[1]))
        spec = PixelSpec(image.size, image.color, image.fit, low_high)
        with suppress(DeepImageMet):
            return opened(spec, eight_bit_only=auto), spec
    facts = take_survey(files, on_event) if parts is None else take_survey_in_parts(files, on_event, parts)
    spec = PixelSpec(image.size, image.color, image.fit, _auto_range(listing, facts, data, seed))
    high = spec.range[1]
    on_event(Note(f"image.range: auto is [0, {high:.0f}], from the largest training value"))
    clipped = sum(fact.largest is not None and fact.largest > high for fact in facts)
    if clipped:
        on_event(Warn(f"{clipped:,} images outside of training hold values above {high:.0f}, which are shown as white"))
    return opened(spec, eight_bit_only=False), spec


def _auto_range(listing: Listing, facts: list[Facts], data: "Data", seed: int) -> tuple[float, float]:
    """Zero and the highest value of the smallest of 8, 10, 12, 14, 16 bits that holds the largest training value."""
    hint = 'say which values are black and white, such as --set "image.range=[0, 1]"'
    corrected = correct(listing, [fact.digest for fact in facts], data)
    training = [facts[row] for row, split in assigned_splits(corrected, facts, data, seed).items() if split == "train"]
    for example, fact in zip(listing.examples, facts, strict=True):
        if isinstance(fact.largest, float):
            raise DataError(f"image.range: auto has no rule for floating-point values, as in {example.file}", hint)
    largest = max((fact.largest for fact in training if fact.largest is not None), default=255)
    for bits in AUTO_BITS:
        if largest < 2**bits:
            return 0.0, float(2**bits - 1)
    raise DataError(f"image.range: auto ends at 16 bits, and the largest training value is {largest:,}", hint)


def _skipped_text(skipped: tuple[Skipped, ...], what: str) -> str:
    count = "1 image cannot be read and " if len(skipped) == 1 else f"{len(skipped):,} images cannot be read and "
    if what == "left out":
        count += "was " if len(skipped) == 1 else "were "
    named = "; ".join(f"{image.file} ({image.reason})" for image in skipped[:_NAMED])
    more = f" and {len(skipped) - _NAMED:,} more" if len(skipped) > _NAMED else ""
    return f"{count}{what}: {named}{more}"


def _fingerprint(class_names: tuple[str, ...], examples: tuple[Example, ...], digests: tuple[str, ...]) -> str:
    lines = sorted((e.split, class_names[e.label], e.path, digests[e.row]) for e in examples)
    return hashlib.blake2b(repr(lines).encode(), digest_size=16).hexdigest()
