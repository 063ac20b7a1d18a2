"""imgrec evaluate"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import chosen_model
from imgrec_cli.cli.options import FormatOption, ModelOption, QuietOption
from imgrec_cli.errors import BadImageError, GateError, InputError

if TYPE_CHECKING:
    from imgrec_cli.evaluation import Evaluation
    from imgrec_cli.stress import Stress

# up to here a matrix fits a terminal of 80 columns
LARGEST_MATRIX = 12
LONGEST_TABLE, WEAKEST = 60, 20  # classes: of more the weakest are shown


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
    stress: Annotated[
        bool, typer.Option("--stress", help="Judge on disturbed images too: noise, blur, light, rotation and more.")
    ] = False,
    tta: Annotated[
        bool, typer.Option("--tta", help="Answer by the mean over slightly changed copies of each image.")
    ] = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE=VALUE", help="Exit code 8 where a figure is lower, such as f1.cat=0.8; repeatable."
        ),
    ] = None,
    quiet: QuietOption = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """Measure accuracy, precision, recall and F1 of a shipped model.

    Example: imgrec evaluate -m runs/2026-01-31-1200-flowers --split validation
    """
    from imgrec_cli import api
    from imgrec_cli.bundle import Manifest, find_bundle
    from imgrec_cli.evaluation import check_figure

    wanted = [_gate(text) for text in fail_under or ()]
    path = chosen_model(model)
    manifest = Manifest.read(find_bundle(path))
    for name, _ in wanted:  # before the images are judged, which takes its time
        check_figure(name, manifest.class_names)
    with output.ProgressPrinter(output.Format.human, quiet or format_ is output.Format.json) as progress:
        evaluation = api.evaluate(path, split=split.value, data=data, tta=tta, on_event=progress)
        disturbed = api.stress(path, split=split.value, data=data, on_event=progress) if stress else None
    gates = [(name, least, evaluation.figure(name)) for name, least in wanted]
    for image, reason in evaluation.unreadable.items():
        output.note(f"not read: {image}: {reason}")
    if format_ is output.Format.json:
        result = evaluation.as_dict()
        if disturbed:
            result["stress"] = disturbed.as_dict()
        if gates:
            result["gates"] = [
                {"figure": name, "at_least": least, "got": got, "passed": got >= least} for name, least, got in gates
            ]
        output.result("evaluate", result)
    else:
        _print(evaluation, [manifest.title(name) for name in evaluation.class_names])
        if disturbed:
            _print_stress(disturbed)
    failed = [f"{name} is {got:.4g}, asked for was {least:g}" for name, least, got in gates if not got >= least]
    if failed:
        raise GateError(f"{evaluation.split}: {'; '.join(failed)}")
    if evaluation.unreadable:
        raise typer.Exit(BadImageError.exit_code)


def _gate(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        return name, float(value if equals else "")
    except ValueError:
        raise InputError(f"--fail-under {text}: expected FIGURE=VALUE, such as accuracy=0.9") from None


def _print(evaluation: "Evaluation", titles: list[str]) -> None:
    summary, name, percent = evaluation.summary, evaluation.split, output.percent
    if evaluation.caveat:
        output.line(f"{name}: {evaluation.caveat}")
    low, high = (percent(bound) for bound in evaluation.accuracy_interval)
    output.line(
        f"{name} accuracy    {percent(summary.accuracy)} of {summary.images} images, 95 % interval {low} to {high}"
    )
    for k, share in summary.top_k.items():
        output.line(f"{name} top-{k}       {percent(share)}")
    output.line(
        f"{name} balanced accuracy {percent(summary.balanced_accuracy)}, Matthews correlation {summary.mcc:.3f}"
    )
    figures = evaluation.as_dict()
    calibration = figures["calibration"]
    output.line(
        f"{name} calibration error {percent(calibration['ece'])}, {percent(calibration['ece_before'])} without the "
        f"temperature of {calibration['temperature']:.3f}"
    )
    for coverage in figures["sets"]:
        asked, measured = percent(coverage["coverage"]), percent(coverage["measured"])
        output.line(
            f"{name} sets for {asked}: {measured} hold the true class, {coverage['mean_size']:.2f} classes each"
        )
    for label, found in figures["thresholds"].items():
        output.line(
            f"{name} threshold {found['threshold']:.3f} for {label}: recall {percent(found['recall'])}, without "
            f"{percent(found['recall_without'])}; precision {percent(found['precision'])}, without "
            f"{percent(found['precision_without'])}"
        )
    output.line()
    rows = [*zip(titles, summary.classes, strict=True)]
    if len(rows) > LONGEST_TABLE:
        rows = sorted((row for row in rows if row[1].support), key=lambda row: row[1].f1)[:WEAKEST]
        output.line(
            f"{name}: the {len(rows)} weakest of {len(titles):,} classes by F1; all are in metrics.json (--format json "
            "prints it)"
        )
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


def _print_stress(found: "Stress") -> None:
    output.line()
    output.line(
        f"{found.split} accuracy under disturbance, {found.images} images, {output.percent(found.accuracy)} without"
    )
    output.table(
        ["disturbance", "1", "2", "3", "4", "5", "mean drop"],
        (
            [name, *(output.percent(value) for value in values), output.percent(found.accuracy - sum(values) / 5)]
            for name, values in found.kinds.items()
        ),
    )
