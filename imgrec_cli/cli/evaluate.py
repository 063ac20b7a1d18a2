"""imgrec evaluate"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import chosen_model
from imgrec_cli.cli.options import FormatOption, ModelOption, QuietOption

if TYPE_CHECKING:
    from imgrec_cli.evaluation import Evaluation

# up to here a matrix fits a terminal of 80 columns
LARGEST_MATRIX = 12


class Split(StrEnum):
    """Which images of the run are judged on."""

    test = "test"
    validation = "validation"
    train = "train"


def evaluate(
    model: ModelOption = None,
    split: Annotated[
        Split, typer.Option(help="Images of the run, or of --data where it has such folders.")
    ] = Split.test,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Judge on this folder of class folders, matched by name.")
    ] = None,
    quiet: QuietOption = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """Measure accuracy, precision, recall and F1 of a shipped model.

    Example: imgrec evaluate -m runs/2026-01-31-1200-flowers --split validation
    """
    from imgrec_cli import api
    from imgrec_cli.bundle import Manifest, find_bundle

    path = chosen_model(model)
    with output.ProgressPrinter(output.Format.human, quiet or format_ is output.Format.json) as progress:
        evaluation = api.evaluate(path, split=split.value, data=data, on_event=progress)
    for image, reason in evaluation.unreadable.items():
        output.note(f"not read: {image}: {reason}")
    if format_ is output.Format.json:
        output.result("evaluate", evaluation.as_dict())
    else:
        manifest = Manifest.read(find_bundle(path))
        _print(evaluation, [manifest.title(name) for name in evaluation.class_names])
    if evaluation.unreadable:
        raise typer.Exit(3)


def _print(evaluation: "Evaluation", titles: list[str]) -> None:
    summary, name, percent = evaluation.summary, evaluation.split, output.percent
    if evaluation.caveat:
        output.line(f"{name}: {evaluation.caveat}")
    output.line(f"{name} accuracy    {percent(summary.accuracy)} of {summary.images} images")
    for k, share in summary.top_k.items():
        output.line(f"{name} top-{k}       {percent(share)}")
    output.line()
    rows = [*zip(titles, summary.classes, strict=True)]
    rows += [("macro average", summary.macro), ("weighted average", summary.weighted)]
    output.table(
        [name, "precision", "recall", "F1", "images"],
        ([label, percent(s.precision), percent(s.recall), percent(s.f1), str(s.support)] for label, s in rows),
    )
    output.line()
    if len(titles) <= LARGEST_MATRIX:
        output.line(f"{name} confusion: rows are the true class, columns the answers in the same order")
        output.table(
            ["", *(str(number) for number in range(1, len(titles) + 1))],
            (
                [f"{number} {label}", *(str(count) for count in counts)]
                for number, (label, counts) in enumerate(zip(titles, summary.confusion, strict=True), start=1)
            ),
        )
    else:
        output.line(f"{name}: the confusion matrix is in metrics.json (--format json prints it)")
