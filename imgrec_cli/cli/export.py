"""imgrec export"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.options import FormatOption, QuietOption
from imgrec_cli.errors import ImgrecError

if TYPE_CHECKING:
    from imgrec_cli.api import Exported


class Target(StrEnum):
    """What a model can be exported to: the keys of `bundle.TARGETS`."""

    litert = "litert"
    litert_float16 = "litert-float16"
    litert_dynamic = "litert-dynamic"
    litert_int8 = "litert-int8"
    onnx = "onnx"
    saved_model = "saved_model"
    keras = "keras"
    tflite_micro = "tflite-micro"


def export(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A finished run; the newest by default.", show_default=False)
    ] = None,
    to: Annotated[list[Target] | None, typer.Option(help="Format; repeatable, all of them by default.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR|FILE.zip",
            help="Where to write a single one; exports/FORMAT in the run else.",
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            min=0, max=100, metavar="POINTS", help="Validation accuracy that float16, dynamic and int8 may lose."
        ),
    ] = 1.0,
    quiet: QuietOption = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """Write the model for other runtimes, each judged by its own runtime first.

    Example: imgrec export runs/2026-01-31-1200-flowers --to litert-int8 -o flowers.zip
    """
    from imgrec_cli import api

    wanted = [target.value for target in to or Target]
    with output.ProgressPrinter(output.Format.human, quiet or format_ is output.Format.json) as progress:
        done = api.export(run, wanted, out, max_drop=max_drop / 100, on_event=progress)
    if format_ is output.Format.json:
        output.result("export", [_as_dict(one) for one in done])
    else:
        print_exports(done)
    failed = [one.error for one in done if one.error is not None]
    for error in failed:
        output.failure(error)
    if failed:
        raise typer.Exit(max(error.exit_code for error in failed))


def print_exports(done: "list[Exported]") -> None:
    """One row per export: what it answers on the validation images, its size and the time of an image."""
    rows = []
    for one in done:
        if one.manifest is None:
            rows.append([one.target, *["–"] * 6, "not written"])
            continue
        parity = one.manifest.parity
        accuracy, reference = parity.accuracy or 0.0, parity.reference_accuracy or 0.0
        rows.append(
            [
                one.target,
                output.percent(1 - parity.disagreements / parity.images),
                f"{parity.largest_gap:.1e}",
                output.percent(accuracy),
                f"{100 * (accuracy - reference):+.1f}",
                output.size(one.manifest.model_bytes),
                f"{parity.milliseconds:.2f} ms",
                str(one.place),
            ]
        )
    header = ["format", "same label", "largest gap", "validation accuracy", "change", "size", "one image", "bundle"]
    output.table(header, rows)


def _as_dict(one: "Exported") -> dict[str, object]:
    from dataclasses import asdict

    error: ImgrecError | None = one.error
    return {
        "format": one.target,
        "bundle": None if one.manifest is None else str(one.place),
        "bytes": None if one.manifest is None else one.manifest.model_bytes,
        "parity": None if one.manifest is None else asdict(one.manifest.parity),
        "error": None if error is None else error.message,
    }
