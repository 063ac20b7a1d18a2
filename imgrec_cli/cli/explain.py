"""imgrec explain"""

from pathlib import Path
from typing import Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import chosen_model
from imgrec_cli.cli.options import ModelOption


def explain(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.", show_default=False)],
    model: ModelOption = None,
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the pictures; made where there is none.")
    ] = Path("explained"),
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="What spoke for this class; the answer by default.")
    ] = None,
) -> None:
    """Show what on an image spoke for the answer.

    Example: imgrec explain photo.jpg -o explained
    """
    from imgrec_cli import api

    for done in api.explain(images, chosen_model(model), out, class_name=class_name):
        said = f"{done.class_name} {output.percent(done.confidence)}"
        output.line(f"{done.image}: {said}, {done.method}: {done.file}")
