"""imgrec data"""

from typing import Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import age
from imgrec_cli.cli.options import FormatOption

app = typer.Typer(name="data", help="Look after collections of images.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look after collections of images."""


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all packs; they are made again when needed.")] = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """List the packs of decoded images that training keeps, or remove them."""
    from dataclasses import asdict

    from imgrec_cli.dataset.cache import cache_folder, clear_packs, list_packs

    if clear:
        output.line(f"freed {output.size(clear_packs())} in {cache_folder()}")
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
