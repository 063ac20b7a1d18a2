"""imgrec report"""

from pathlib import Path
from typing import Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import chosen_model


def report(
    run: Annotated[
        Path | None, typer.Argument(help="Folder of a run; the newest finished one by default.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write; report.html in the run.")
    ] = None,
    no_images: Annotated[bool, typer.Option("--no-images", help="Embed no picture of the data set.")] = False,
) -> None:
    """Write all that is known of a run as one page to open and to send.

    Example: imgrec report runs/2026-01-31-1200-flowers --no-images
    """
    from imgrec_cli import api

    file = api.report(chosen_model(run), out, images=not no_images)
    output.line(f"wrote {file}, {output.size(file.stat().st_size)}" + ("" if no_images else "; it embeds pictures"))
