"""imgrec explain"""

from pathlib import Path
from typing import Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import chosen_model
from imgrec_cli.cli.options import ModelOption
from imgrec_cli.errors import BadImageError


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
    from imgrec_cli.classifier import Unreadable

    results = api.explain(images, chosen_model(model), out, class_name=class_name)
    for done in results:
        if isinstance(done, Unreadable):
            output.note(f"not read: {done.source}: {done.reason}")
            continue
        said = f"{done.class_name} {output.percent(done.confidence)}"
        output.line(f"{done.image}: {said}, {done.method}: {done.file}")
    if any(isinstance(done, Unreadable) for done in results):
        raise typer.Exit(BadImageError.exit_code)
