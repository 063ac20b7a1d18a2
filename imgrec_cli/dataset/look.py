"""A look at a collection without training: its findings, its counts, and its split as a manifest."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from imgrec_cli.config import Data, Image, load_config
from imgrec_cli.dataset.audit import Finding, audit
from imgrec_cli.dataset.collection import Collection
from imgrec_cli.dataset.divide import assigned_splits
from imgrec_cli.dataset.load import collect
from imgrec_cli.dataset.manifest import Row
from imgrec_cli.dataset.scan import Problems, scan
from imgrec_cli.dataset.walk import SPLITS, Split
from imgrec_cli.errors import DataError
from imgrec_cli.progress import Listener, ignore

# A folder without a config is looked at in small: enough to tell near duplicates, and quick to write.
LOOK = Image(size=(32, 32))


@dataclass(frozen=True, slots=True)
class Look:
    """A collection, the split of every place that is used, and what was found.

    `group`, `corrections` and `titles` are the config's expression, file and names for people.
    """

    found: Collection
    splits: dict[int, Split]
    findings: list[Finding]
    group: str | None
    corrections: str | None
    titles: dict[str, str]

    def name(self, place: int) -> str:
        """The class of an example."""
        listing = self.found.listing
        return listing.class_names[listing.examples[place].label]

    def as_dict(self) -> dict[str, Any]:
        """Counts and findings as plain values for JSON; images by their short names."""
        shown = self.found.shown
        return {
            "images": len(self.splits),
            "classes": list(self.found.listing.class_names),
            "splits": {split: sum(own == split for own in self.splits.values()) for split in SPLITS},
            "findings": [
                {
                    "kind": finding.kind,
                    "level": finding.level,
                    "message": finding.message,
                    "fix": finding.fix,
                    "groups": [[shown[place] for place in group] for group in finding.groups],
                    "reasons": {
                        shown[place]: self.found.facts[place].reason
                        for place in finding.places
                        if self.found.facts[place].reason
                    },
                }
                for finding in self.findings
            ],
        }

    def statistics(self) -> list[dict[str, Any]]:
        """One entry per class and split, then per split and for all: counts, sizes in pixels, modes, formats, bytes."""
        groups: list[tuple[str, str, list[int]]] = []
        for name in self.found.listing.class_names:
            for split in SPLITS:
                groups.append(
                    (name, split, [p for p, own in self.splits.items() if own == split and self.name(p) == name])
                )
        for split in SPLITS:
            groups.append(("all", split, [p for p, own in self.splits.items() if own == split]))
        groups.append(("all", "all", list(self.splits)))
        return [{"class": name, "split": split, **self._of(places)} for name, split, places in groups if places]

    def _of(self, places: Sequence[int]) -> dict[str, Any]:
        facts = [self.found.facts[place] for place in places]
        return {
            "images": len(facts),
            "height": [min(f.height for f in facts), median(f.height for f in facts), max(f.height for f in facts)],
            "width": [min(f.width for f in facts), median(f.width for f in facts), max(f.width for f in facts)],
            "modes": dict(Counter(f.mode for f in facts).most_common()),
            "formats": dict(Counter(f.format for f in facts).most_common()),
            "bytes": sum(f.bytes for f in facts),
        }

    def rows(self) -> list[Row]:
        """The split as rows of a manifest, in the order of the listing, with the groups that it kept together."""
        listing = self.found.listing
        search = re.compile(self.group or "()").search
        rows = []
        for place, split in sorted(self.splits.items()):
            example = listing.examples[place]
            group = example.group or (match[1] if (match := search(example.path)) else "")
            rows.append(Row(example.path, example.file, self.name(place), split, group))
        return rows


def look_at(
    target: Path, overrides: Sequence[str] = (), on_event: Listener = ignore, command: str = "imgrec data check"
) -> Look:
    """Look at a folder of images, or at what a config names. Raises DataError for what cannot be meant at all.

    What would end a training run is a finding of level error here.
    """
    data, image, seed, key = _meant(target, overrides, command)
    problems = Problems(keep=True)
    listing = scan(data, key, problems)
    found = collect(data, image, seed, on_event, listing)
    findings = [Finding(kind, "error", error.message, error.hint) for kind, error in problems.kept]
    try:
        splits = assigned_splits(found.corrected, found.facts, data, seed)
    except DataError as error:
        splits = {
            place: example.split
            for place, example in enumerate(listing.examples)
            if not found.facts[place].reason and place not in found.corrected.excluded
        }
        if "no_validation" not in {kind for kind, _ in problems.kept}:
            findings.append(Finding("no_split", "error", error.message, error.hint))
    findings += [Finding(kind, "warning", text) for kind, text in listing.remarks]
    for paths, why in (
        (found.corrected.changed, "whose picture is another one since: not applied"),
        (found.corrected.missing, "without an image"),
    ):
        if paths:
            count = "1 correction" if len(paths) == 1 else f"{len(paths):,} corrections"
            findings.append(Finding("correction", "warning", f"{count} {why}: {', '.join(paths[:10])}"))
    findings += audit(found, splits, data)
    findings.sort(key=lambda finding: ("error", "warning", "notice").index(finding.level))
    return Look(found, splits, findings, data.group, data.corrections, dict(data.classes.titles))


def _meant(target: Path, overrides: Sequence[str], command: str) -> tuple[Data, Image, int, str]:
    """The sections of a config, or those for a bare folder, and what its images were typed behind."""
    if target.suffix.lower() in (".yaml", ".yml") and not target.is_dir():
        config = load_config(target, overrides)
        return config.data, config.image, config.seed, "data.folder"
    if overrides:
        raise DataError(f"{target}: --set belongs to a config", "write one: imgrec config init, or leave --set out")
    return Data(folder=str(target.absolute())), LOOK, 0, command
