"""imgrec reproduce"""

from pathlib import Path
from typing import Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.options import FormatOption, QuietOption
from imgrec_cli.errors import ReproductionError


def reproduce(
    run: Annotated[Path, typer.Argument(help="A finished run.", show_default=False)],
    quiet: QuietOption = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """Train a finished run again and say whether images, metrics and weights are the same.

    Example: imgrec reproduce runs/2026-11-25-1412-quickstart
    """
    from dataclasses import asdict

    from imgrec_cli import api

    with output.ProgressPrinter(format_, quiet) as progress:
        found = api.reproduce(run, on_event=progress)
    if format_ is output.Format.json:
        values = {**asdict(found), "first": str(found.first), "second": str(found.second)}
        output.result("reproduce", {**values, "exact": found.exact, "good": found.good})
    else:
        same = {True: "equal to the bit", False: "differ"}
        output.line(f"images: {'; '.join(found.images) or 'the same'}")
        output.line(f"metrics: {'equal' if found.metrics == 0 else f'differ by up to {found.metrics:.3g}'}")
        output.line(f"best weights: {same[found.weights]}; all state at the end: {same[found.state]}")
        if found.machine:
            output.line(f"the machine is another one: {'; '.join(found.machine)}")
        output.line(f"the second run is {found.second}")
    if not found.good:
        raise ReproductionError(f"{found.first}: trained again it did not end as the first time")
