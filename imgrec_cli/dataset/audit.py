"""What may be wrong with a collection of images, from the facts of the one pass that decodes them."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection as Places
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from imgrec_cli.dataset.collection import Collection
from imgrec_cli.dataset.pack import Facts
from imgrec_cli.dataset.scan import Listing
from imgrec_cli.dataset.walk import Split
from imgrec_cli.imaging import SUFFIXES_OF
from imgrec_cli.wording import count

if TYPE_CHECKING:  # config imports pydantic, and `imgrec evaluate` has to start without it
    from imgrec_cli.config.images import Data

Level = Literal["error", "warning", "notice"]

# Where a picture is far from the others of its collection: areas against the median one, in pixels, and proportions.
LARGE_PIXELS = 50_000_000
FAR_AREA = 64  # eight times the side
TINY_SIDE = 16
LONGEST = 5.0  # longer side to shorter one
IMBALANCE = 5.0  # images of the largest class to those of the smallest
SHARE_APART = 0.2  # of a mode in two classes or splits
_KEPT = 5  # groups of a finding, and images of a group, that a run keeps as examples
_GROUP_FIX = r'--set "data.group=([^/]*?)[-_ .]*\d*\.\w+$"'
_SERIES = re.compile(r"(.*?\w)[-_ .]*\(?\d+\)?$")
_ROBOFLOW = re.compile(r"\.rf\.[0-9a-f]{32}$")


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing that is wrong: `message` says what, `fix` what to do.

    `groups` are places of examples in the listing, those that belong together (the copies of a picture) in one group;
    a finding about folders or classes has none.
    """

    kind: str
    level: Level
    message: str
    fix: str = ""
    groups: tuple[tuple[int, ...], ...] = ()

    @property
    def places(self) -> list[int]:
        """All places once, in the order of the groups."""
        return list(dict.fromkeys(place for group in self.groups for place in group))

    def as_dict(self, shown: Sequence[str]) -> dict[str, Any]:
        """The finding as plain values for JSON, its first groups by the short names of the images in `shown`."""
        return {
            "kind": self.kind,
            "level": self.level,
            "message": self.message,
            "fix": self.fix,
            "images": len(self.places),
            "groups": len(self.groups),
            "examples": [[shown[place] for place in group[:_KEPT]] for group in self.groups[:_KEPT]],
        }


def audit(found: Collection, splits: Mapping[int, Split], data: "Data") -> list[Finding]:
    """All findings, the worst first. `splits` has the split of every place that is used."""
    listing, facts = found.listing, found.facts
    used = [place for place in range(len(facts)) if place not in found.corrected.excluded]
    readable = [place for place in used if not facts[place].reason]
    findings = [
        *_unreadable(used, facts, data),
        *_leaks(listing, facts, found.corrected.excluded),
        *_same_picture(readable, listing, facts),
        *_near(found, readable, splits, data),
        *_series(readable, found, splits, data),
        *_shapes(readable, facts),
        *_wrong_extension(readable, listing, facts),
        *_modes(readable, listing, facts, splits),
        *_imbalance(readable, listing),
    ]
    rank = ("error", "warning", "notice")
    return sorted(findings, key=lambda finding: rank.index(finding.level))


def leaks(listing: Listing, facts: Sequence[Facts], excluded: Places[int]) -> list[tuple[int, ...]]:
    """Groups of places of one picture that stands in two or more given splits."""
    if not listing.given:
        return []
    groups = _by_identity((place for place in range(len(facts)) if place not in excluded), facts)
    return [group for group in groups if len({listing.examples[place].split for place in group}) > 1]


def summary_line(findings: Sequence[Finding]) -> str:
    """One line for a run that goes on: what was found in the pictures that nothing else has told."""
    told = [
        finding
        for finding in findings
        if finding.level == "warning" and finding.groups and finding.kind not in _TOLD_WHILE_LOADING
    ]
    if not told:
        return ""
    return f"{'; '.join(finding.message for finding in told)}. To see them: imgrec data check CONFIG -o sheet.html"


_TOLD_WHILE_LOADING = ("empty_file", "truncated", "undecodable", "too_large", "leak")


def _unreadable(places: list[int], facts: list[Facts], data: "Data") -> list[Finding]:
    by_kind: dict[str, list[int]] = defaultdict(list)
    for place in places:
        reason = facts[place].reason
        if not reason:
            continue
        if reason == "the file is empty":
            kind = "empty_file"
        elif "million pixels" in reason or "memory" in reason:
            kind = "too_large"
        elif re.search(r"truncated|end before|not enough|unexpected end|\beof\b|incomplete|broken data", reason, re.I):
            kind = "truncated"
        else:
            kind = "undecodable"
        by_kind[kind].append(place)
    words = {
        "empty_file": "without a single byte",
        "too_large": "too large to decode",
        "truncated": "cut off or damaged inside",
        "undecodable": "that cannot be decoded",
    }
    level: Level = "error" if data.on_bad_image == "stop" else "warning"
    fix = "replace them; training leaves them out by name" if level == "warning" else "replace them"
    return [
        Finding(kind, level, f"{_files(kept)} {words[kind]}", fix, tuple((place,) for place in kept))
        for kind, kept in by_kind.items()
    ]


def _leaks(listing: Listing, facts: list[Facts], excluded: Places[int]) -> list[Finding]:
    groups = leaks(listing, facts, excluded)
    if not groups:
        return []
    message = f"{_pictures(groups)} in two splits: what was trained on cannot judge"
    fix = "leave the copies among the training images out: --set data.on_leak=skip"
    return [Finding("leak", "error", message, fix, tuple(groups))]


def _same_picture(places: list[int], listing: Listing, facts: list[Facts]) -> list[Finding]:
    contradictions, copies = [], []
    for group in _by_identity(places, facts):
        labels = {listing.examples[place].label for place in group}
        if len(labels) > 1:
            contradictions.append(group)
        elif len({listing.examples[place].split for place in group}) == 1:
            copies.append(group)  # in two splits it is a leak
    found = []
    if contradictions:
        fix = "decide on the sheet which label is right, and exclude or relabel the other copy"
        text = f"{_pictures(contradictions)} under two labels"
        found.append(Finding("contradiction", "warning", text, fix, tuple(contradictions)))
    if copies:
        more = sum(len(group) - 1 for group in copies)
        text = f"{_pictures(copies)} several times in a class, {count(more, 'copy', 'copies')} in all"
        fix = "copies count twice and teach nothing; the split keeps them on one side"
        found.append(Finding("duplicate", "warning", text, fix, tuple(copies)))
    return found


def _near(found: Collection, places: list[int], splits: Mapping[int, Split], data: "Data") -> list[Finding]:
    """Groups of pictures that differ by little, apart from those that are equal."""
    listing, facts = found.listing, found.facts
    used = set(places)
    place_of = {row: place for place, row in found.rows.items()}
    copies: dict[str, int] = {}  # the first that is used, of pictures that are equal
    for place in places:
        copies.setdefault(facts[place].identity, place)
    kinds: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for rows in found.pack.near:
        left, right = (copies.get(facts[place_of[row]].identity, -1) for row in rows)
        if left not in used or right not in used:
            continue
        one, other = listing.examples[left], listing.examples[right]
        if one.label != other.label:
            kinds["near_contradiction"].append((left, right))
        elif splits.get(left) != splits.get(right):
            kinds["near_leak"].append((left, right))
        else:
            kinds["near_duplicate"].append((left, right))
    words = {
        "near_contradiction": "almost the same picture under two labels",
        "near_leak": "almost the same picture in two splits",
        "near_duplicate": "almost the same picture twice",
    }
    fixes = dict.fromkeys(words, "look at them on the sheet, and exclude the copy")
    # not between two folders that were given: imgrec's own split can be told to keep them together
    if any(listing.examples[left].split == listing.examples[right].split for left, right in kinds["near_leak"]):
        fixes["near_leak"] += "; or keep on one side what has one name: "
        fixes["near_leak"] += "widen data.group" if data.group else _GROUP_FIX
    return [
        Finding(kind, "warning", f"{count(len(kinds[kind]), 'pair')} of {text}", fixes[kind], tuple(kinds[kind]))
        for kind, text in words.items()
        if kinds[kind]
    ]


def _series(places: list[int], found: Collection, splits: Mapping[int, Split], data: "Data") -> list[Finding]:
    """Names such as `clip07_001`, `clip07_002` on both sides of a split: frames or bursts of one thing, it seems."""
    listing = found.listing
    if not listing.given and (data.group is not None or any(example.group for example in listing.examples)):
        return []  # the split follows the groups
    by_class: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    sizes: Counter[int] = Counter()
    for place in places:
        label = listing.examples[place].label
        sizes[label] += 1
        series = _series_of(found.shown[place])
        if series:
            by_class[label][series].append(place)
    groups: list[tuple[int, ...]] = []
    for label, found_series in by_class.items():
        several = {name: members for name, members in found_series.items() if len(members) > 1}
        # A name that most of a class has is the class's, not that of a series in it; words count as series where they
        # are many and make up the class.
        covered = sum(map(len, several.values()))
        words_count = len(several) >= 3 and covered >= sizes[label] / 2
        for name, members in several.items():
            numbered = any(sign.isdigit() for sign in name)
            across = len({splits.get(place) for place in members}) > 1
            if across and len(members) < sizes[label] / 2 and (numbered or words_count):
                groups.append(tuple(members))
    if not groups:
        return []
    example = _series_of(found.shown[groups[0][0]])
    text = f"{count(len(groups), 'series', 'series')} of files on both sides of a split, such as {example}…"
    fix = f"if a name stands for one thing (a video, a patient), keep it on one side: {_GROUP_FIX}"
    if listing.given:
        fix = "if a name stands for one thing (a video, a patient), move all of its files into one split"
    return [Finding("series", "warning", text, fix, tuple(groups))]


def _series_of(path: str) -> str:
    """What a file's name shares with its neighbours in a series: the part before the last number."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    exported = _ROBOFLOW.sub("", stem)
    if exported != stem:  # copies that a well-known service has changed at random carry the first one's name
        return exported
    match = _SERIES.match(stem)
    if match is None or (match[1].isdigit() and not re.search(r"[-_ .]", stem)):
        return ""
    return match[1]


def _shapes(places: list[int], facts: list[Facts]) -> list[Finding]:
    if not places:
        return []
    middle = median(facts[place].height * facts[place].width for place in places)
    large, tiny, long = [], [], []
    for place in places:
        height, width = facts[place].height, facts[place].width
        area, short = height * width, min(height, width)
        if area > LARGE_PIXELS or area > FAR_AREA * middle:
            large.append(place)
        elif short <= 2 or area * FAR_AREA < middle or (short < TINY_SIDE and area * 4 < middle):
            tiny.append(place)
        if max(height, width) > LONGEST * short:
            long.append(place)
    side = f"the middle one has {middle:,.0f} pixels"
    found = [
        ("large", large, f"far larger than the others; {side}", "look whether they belong here"),
        ("tiny", tiny, f"far smaller than the others; {side}", "they hold next to nothing: look, and exclude them"),
        ("aspect", long, f"more than {LONGEST:g} times as long as wide", "see what image.fit makes of them: crop, pad"),
    ]
    return [
        Finding(kind, "warning", f"{_images(kept)} {text}", fix, tuple((place,) for place in kept))
        for kind, kept, text, fix in found
        if kept
    ]


def _wrong_extension(places: list[int], listing: Listing, facts: list[Facts]) -> list[Finding]:
    wrong = []
    for place in places:
        name = {"MPO": "JPEG"}.get(facts[place].format, facts[place].format)
        if not listing.examples[place].file.lower().endswith(SUFFIXES_OF.get(name, ())):
            wrong.append(place)
    if not wrong:
        return []
    kinds = ", ".join(sorted({facts[place].format for place in wrong}))
    text = f"{_files(wrong)} whose ending is not that of what they hold ({kinds})"
    fix = "imgrec reads what they hold; other programs may not: rename them"
    return [Finding("wrong_extension", "warning", text, fix, tuple((place,) for place in wrong))]


def _modes(places: list[int], listing: Listing, facts: list[Facts], splits: Mapping[int, Split]) -> list[Finding]:
    """Several modes in a collection; worse where a class or a split has its own, which a model can tell it by."""
    modes = Counter(facts[place].mode for place in places)
    if len(modes) < 2:
        return []
    usual = modes.most_common(1)[0][0]
    others = [place for place in places if facts[place].mode != usual]
    apart = []
    classes = {place: listing.class_names[listing.examples[place].label] for place in places}
    for what, group_of in (("class", classes), ("split", splits)):
        totals = Counter(group_of.get(place, "") for place in places)
        odd = Counter(group_of.get(place, "") for place in others)
        shares = {name: odd[name] / total for name, total in totals.items() if name}
        if shares and max(shares.values()) - min(shares.values()) > SHARE_APART:
            worst = max(shares, key=lambda name: shares[name])
            apart.append(f"{100 * shares[worst]:.0f} % of the {what} {worst}")
    text = "different modes: " + ", ".join(f"{number:,} {mode}" for mode, number in modes.most_common())
    fix = "image.color makes them alike for the model"
    if apart:
        text += f"; not {usual}: {', '.join(apart)}"
        fix = "a model can tell such a class or split by its mode alone: save all images in one mode"
    return [Finding("modes", "warning" if apart else "notice", text, fix, tuple((place,) for place in others))]


def _imbalance(places: list[int], listing: Listing) -> list[Finding]:
    counts = Counter(listing.examples[place].label for place in places if listing.examples[place].split == "train")
    if not counts:
        return []
    (large, most), (small, fewest) = max(counts.items(), key=_second), min(counts.items(), key=_second)
    if most < IMBALANCE * fewest:
        return []
    names = listing.class_names
    text = f"classes of very different size: {names[large]} has {most:,} images, {names[small]} {fewest:,}"
    fix = f"add images of {names[small]}; judge by macro F1, which counts every class alike"
    return [Finding("imbalance", "warning", text, fix)]


def _second(pair: tuple[int, int]) -> int:
    return pair[1]


def _by_identity(places: Iterable[int], facts: Sequence[Facts]) -> list[tuple[int, ...]]:
    """Groups of two or more places with equal pictures."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place in places:
        if not facts[place].reason:
            groups[facts[place].identity].append(place)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _pictures(groups: Sequence[object]) -> str:
    return "1 picture stands" if len(groups) == 1 else f"{len(groups):,} pictures stand"


def _files(places: Sequence[int]) -> str:
    return count(len(places), "file")


def _images(places: Sequence[int]) -> str:
    return f"{count(len(places), 'image')} {'is' if len(places) == 1 else 'are'}"
