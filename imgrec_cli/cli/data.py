"""imgrec data"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import age
from imgrec_cli.cli.options import FormatOption, QuietOption, SetOption
from imgrec_cli.errors import DataError, InputError

if TYPE_CHECKING:
    from imgrec_cli.dataset.look import Look

app = typer.Typer(name="data", help="Look after collections of images.", no_args_is_help=True)
TargetArgument = Annotated[
    Path, typer.Argument(metavar="DIR|CONFIG", help="Folder of images, or a config.", show_default=False)
]
SheetOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE.html", help="Also write a sheet of the pictures, to decide by clicking."
    ),
]
SheetLimit = Annotated[int, typer.Option("--limit", min=1, help="Pictures on the sheet at most; it embeds them.")]
_NAMED = 3
_LISTED = 10


@app.callback()
def data() -> None:
    """Look after collections of images."""


@app.command()
def check(
    target: TargetArgument,
    out: SheetOption = None,
    limit: SheetLimit = 400,
    set_: SetOption = None,
    quiet: QuietOption = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """Say what is wrong with a collection: damaged, doubled, leaked, contradictory, odd.

    Example: imgrec data check photos/flowers -o sheet.html
    """
    look = _look(target, set_, quiet, format_, "imgrec data check")
    if out is not None:
        from imgrec_cli.sheets import audit_sheet

        shown = audit_sheet(look, out, limit)
    if format_ is output.Format.json:
        output.result("data check", {"target": str(target), **look.as_dict()})
    else:
        for finding in look.findings:
            output.line(f"{finding.level}: {finding.message}")
            names = [look.found.shown[place] for place in finding.places]
            if names:
                more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
                output.line(f"  such as {', '.join(names[:_NAMED])}{more}")
            for line in finding.fix.splitlines():
                output.line(f"  {line}")
        levels = Counter(finding.level for finding in look.findings)
        told = (
            ", ".join(f"{levels[level]} {level}{'s' if levels[level] > 1 else ''}" for level in levels) or "no findings"
        )
        output.line(f"{len(look.splits):,} images in {len(look.found.listing.class_names)} classes looked at: {told}")
        if out is not None:
            output.line(f"wrote {out} with {shown}")
    if any(finding.level == "error" for finding in look.findings):
        raise typer.Exit(DataError.exit_code)


@app.command()
def stats(
    target: TargetArgument,
    set_: SetOption = None,
    quiet: QuietOption = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """Count images by class and split, with their sizes, modes and formats.

    Example: imgrec data stats photos/flowers
    """
    entries = _look(target, set_, quiet, format_, "imgrec data stats").statistics()
    if format_ is output.Format.json:
        output.result("data stats", entries)
        return

    def side(values: list[float]) -> str:
        return f"{values[0]:g}" if values[0] == values[2] else f"{values[0]:g}-{values[2]:g} ({values[1]:g})"

    def counts(values: dict[str, int]) -> str:
        return ", ".join(values) if len(values) == 1 else ", ".join(f"{n:,} {name}" for name, n in values.items())

    output.table(
        ["class", "split", "images", "height (middle)", "width (middle)", "modes", "formats", "size"],
        (
            [
                *(e["class"], e["split"], f"{e['images']:,}", side(e["height"]), side(e["width"])),
                *(counts(e["modes"]), counts(e["formats"]), output.size(e["bytes"])),
            ]
            for e in entries
        ),
    )


@app.command()
def split(
    target: TargetArgument,
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.csv", help="Manifest to write; .csv or .jsonl.")],
    set_: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Freeze a split as a manifest: which image trains, which chooses, which judges.

    Example: imgrec data split photos/flowers -o split.csv
    """
    from imgrec_cli.config import written
    from imgrec_cli.dataset.manifest import write_manifest

    if out.exists():
        raise InputError(f"{out}: exists already and is left as it is", "name another file with --output")
    look = _look(target, set_, quiet, output.Format.human, "imgrec data split")
    broken = [finding for finding in look.findings if finding.kind in ("no_split", "no_validation", "class_sets")]
    for finding in broken:
        if finding.level == "error":
            raise DataError(finding.message, finding.fix)
    write_manifest(out, look.rows())
    counts = Counter(look.splits.values())
    output.line(f"wrote {out}: " + ", ".join(f"{counts[name]:,} {name}" for name in ("train", "validation", "test")))
    output.line(f"in a config, in place of the folder:  data: {written({'manifest': str(out)})}")


def _look(target: Path, overrides: list[str] | None, quiet: bool, format_: output.Format, command: str) -> "Look":
    from imgrec_cli.dataset.look import look_at

    with output.ProgressPrinter(output.Format.human, quiet or format_ is output.Format.json) as progress:
        return look_at(target, overrides or (), progress, command)


@app.command()
def label_issues(
    config: Annotated[Path, typer.Argument(help="YAML file of the experiment.", show_default=False)],
    out: SheetOption = None,
    limit: SheetLimit = 200,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Parts; a model is trained for each, without it.")] = 5,
    set_: SetOption = None,
    quiet: QuietOption = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """Rank the labels that are likely wrong, by models that have not seen the pictures.

    Example: imgrec data label-issues flowers.yaml -o sheet.html
    """
    from imgrec_cli import api

    with output.ProgressPrinter(output.Format.human, quiet or format_ is output.Format.json) as progress:
        found = api.label_issues(config, set_ or (), folds=folds, on_event=progress)
    if out is not None:
        from imgrec_cli.sheets import issues_sheet

        shown = issues_sheet(found, out, limit)
    if format_ is output.Format.json:
        output.result("data label-issues", [issue.as_dict() for issue in found.ranked])
        return
    for issue in found.ranked[:_LISTED]:
        output.line(
            f"{issue.shown}: labelled {issue.label} {output.percent(issue.given_probability)}, "
            f"rather {issue.suggested} {output.percent(issue.suggested_probability)}"
        )
    doubted = sum(issue.doubted for issue in found.ranked)
    output.line(f"{doubted:,} of {len(found.ranked):,} labels are in doubt, the most doubtful above")
    if out is not None:
        output.line(f"wrote {out} with {shown}")


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all packs; they are made again when needed.")] = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """List the packs of decoded images that training keeps, or remove them."""
    from dataclasses import asdict

    from imgrec_cli.dataset.cache import clear_packs, list_packs
    from imgrec_cli.machine import cache_folder

    if clear:
        freed = clear_packs()
        if format_ is output.Format.json:
            output.result("data cache", {"freed": freed, "folder": str(cache_folder())})
        else:
            output.line(f"freed {output.size(freed)} in {cache_folder()}")
        return
    packs = list_packs()
    if format_ is output.Format.json:
        output.result("data cache", [asdict(pack) for pack in packs])
        return
    output.line(f"{cache_folder()}: {len(packs)} packs, {output.size(sum(pack.bytes for pack in packs))}")
    if packs:
        output.table(
            ["pack", "images", "size", "last used"],
            ([pack.source, str(pack.images), output.size(pack.bytes), age(pack.last_used)] for pack in packs),
        )
