"""The three sheets: what an audit found, labels that may be wrong, and the images to label next."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.bundle import Manifest
from imgrec_cli.dataset.corrections import COLUMNS, read_corrections
from imgrec_cli.dataset.manifest import relative_to
from imgrec_cli.progress import readable_size
from imgrec_cli.sheets.sheet import Card, Section, Sheet, limited, write_sheet

if TYPE_CHECKING:
    from imgrec_cli.classifier import Prediction
    from imgrec_cli.dataset.issues import LabelIssues
    from imgrec_cli.dataset.look import Look


def audit_sheet(look: "Look", path: Path, limit: int) -> str:
    """Write the sheet of an audit, a section for each finding; returns how much of it is shown, in words."""
    listing, shown, facts = look.found.listing, look.found.shown, look.found.facts

    def card(place: int) -> Card:
        example, fact = listing.examples[place], facts[place]
        size = f"{fact.width}×{fact.height} {fact.mode}" if fact.height else ""
        known = (look.splits.get(place, ""), size, fact.reason)
        label = listing.class_names[example.label]
        return Card(example.file, shown[place], label, "", fact.digest, tuple(text for text in known if text))

    sections = [
        Section(finding.message, finding.fix, [[card(place) for place in group] for group in finding.groups])
        for finding in look.findings
        if finding.groups
    ]
    sheet = Sheet(
        title="What the audit found",
        intro="Keep what is right, exclude what should not be used, and give the right class to what has a wrong one.",
        saves="corrections",
        file_name="corrections.csv",
        classes=listing.class_names,
        sections=limited(sections, limit),
        titles=look.titles,
        earlier=_earlier(look.corrections),
        summary=[f"{finding.level}: {finding.message}" for finding in look.findings if not finding.groups],
    )
    return _written(sheet, path)


def issues_sheet(found: "LabelIssues", path: Path, limit: int) -> str:
    """Write the sheet of labels that may be wrong, the most doubtful first; returns how much is shown, in words."""
    cards = [
        [
            Card(
                issue.file,
                issue.shown,
                issue.label,
                issue.suggested,
                issue.digest,
                (f"{issue.split}", f"given {issue.given_probability:.0%}, suggested {issue.suggested_probability:.0%}"),
            )
        ]
        for issue in found.ranked
    ]
    sections = [Section("Most doubtful first", "", cards)]
    sheet = Sheet(
        title="Labels that may be wrong",
        intro="Models that never saw these pictures answer otherwise than their labels. They are often wrong: decide "
        "by what you see.",
        saves="corrections",
        file_name="corrections.csv",
        classes=found.class_names,
        sections=limited(sections, limit),
        titles=found.titles,
        earlier=_earlier(found.corrections),
    )
    return _written(sheet, path)


def next_sheet(answers: "Sequence[tuple[Prediction, Path]]", manifest: Manifest, path: Path) -> str:
    """Write the sheet of images to label; their paths are relative to the sheet, beside which its file belongs."""
    base = path.absolute().parent
    cards = [
        [
            Card(
                str(file),
                relative_to(base, str(file.absolute())),
                "",
                answer.label,
                "",
                tuple(f"{manifest.title(name)} {share:.0%}" for name, share in answer.ranking[:2]),
            )
        ]
        for answer, file in answers
    ]
    name = f"{path.stem}.csv"
    sheet = Sheet(
        title="Images to label next",
        intro="Say what each picture shows; those that you pass over are not saved. Keep the saved file in the folder "
        f"of this sheet and name it in the config beside the folder: data: {{folder: …, manifest: {name}}}",
        saves="manifest",
        file_name=name,
        classes=manifest.class_names,
        sections=[Section("In the order asked for", "", cards)],
        titles=manifest.titles,
    )
    return _written(sheet, path)


def _earlier(corrections: str | None) -> list[dict[str, str]]:
    if corrections is None:
        return []
    return [{key: getattr(one, key) for key in COLUMNS} for one in read_corrections(Path(corrections))]


def _written(sheet: Sheet, path: Path) -> str:
    size = write_sheet(sheet, path)
    shown = sum(len(group) for section in sheet.sections for group in section.groups)
    left_out = sum(section.more for section in sheet.sections)
    of = f" of {shown + left_out:,}" if left_out else ""
    return f"{shown:,}{of} pictures embedded, {readable_size(size)}"
