"""imgrec config"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.options import SetOption
from imgrec_cli.errors import InputError, quoted

if TYPE_CHECKING:
    from imgrec_cli.config import Config
    from imgrec_cli.dataset.scan import Listing

NAMED_CLASSES = 50

app = typer.Typer(name="config", help="Write, check and show configs.", no_args_is_help=True)
ConfigArgument = Annotated[Path, typer.Argument(help="YAML file of the experiment.", show_default=False)]


@app.command()
def init(
    data: Annotated[Path, typer.Argument(metavar="DATA_DIR", help="Folder with one folder of images per class.")],
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write; <folder name>.yaml by default."),
    ] = None,
    label_from: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Class of an image, captured from its path below the folder.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="REGEX", help="What stays on one side of the split, captured from its path.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="What training may take on this machine, by an estimate.")
    ] = 10.0,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of keras.applications, …_no_top.h5; one that Keras has is found."),
    ] = None,
) -> None:
    """Write a starter config for a folder of images; its comments say why each thing was chosen.

    Example: imgrec config init photos/flowers
    """
    from imgrec_cli.dataset.starter import starter_config

    path = out or Path(f"{data.resolve().name}.yaml")
    if path.exists():
        raise InputError(f"{path}: exists already and is left as it is", "name another file with --output")
    text = starter_config(data.resolve(), path.parent.resolve(), label_from, group, minutes, weights)
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    output.line(f"wrote {path}")
    output.line("Next:")
    output.line(f"  imgrec config check {quoted(path)}")
    output.line(f"  imgrec train {quoted(path)}")


@app.command()
def check(config: ConfigArgument, set_: SetOption = None) -> None:
    """Check a config and its data without training."""
    loaded, listing = _with_data(config, set_)
    from imgrec_cli.config import check_class_names, check_weights, layer_table
    from imgrec_cli.dataset import plan
    from imgrec_cli.origin import check_earlier_runs

    check_weights(loaded)
    check_class_names(loaded, listing.class_names)
    check_earlier_runs(loaded, listing.class_names)
    examples, undivided = plan(listing, loaded.data, loaded.seed)
    for warning in (*listing.warnings, *undivided):
        output.note(f"warning: {warning}")
    counts = Counter(example.split for example in examples)
    for split in ("train", "validation", "test"):
        cut = "" if split == "train" or split in listing.given else ", cut from the training images"
        output.line(f"{split}: {counts[split]:,} images{cut}")
    output.line("no image was opened: imgrec data check finds those that are damaged, equal or contradictory")
    names = listing.class_names
    more = f" and {len(names) - NAMED_CLASSES:,} more" if len(names) > NAMED_CLASSES else ""
    output.line(f"{len(names):,} classes: {', '.join(names[:NAMED_CLASSES])}{more}")
    parameters = sum(row.parameters for row in layer_table(loaded, len(listing.class_names)))
    output.line(f"{parameters:,} parameters")
    output.line(f"{config}: ok")


@app.command()
def show(
    config: ConfigArgument,
    set_: SetOption = None,
    model: Annotated[
        bool, typer.Option("--model", help="Show the layers instead, with output shapes and parameters.")
    ] = False,
) -> None:
    """Print a config with every value, or its layers."""
    from imgrec_cli.config import layer_table, load_config, resolved_yaml

    if not model:
        output.line(resolved_yaml(load_config(config, set_ or ()), Path.cwd()).rstrip())
        return
    loaded, listing = _with_data(config, set_)
    rows = layer_table(loaded, len(listing.class_names))
    total = sum(row.parameters for row in rows)
    output.table(
        ["layer", "output", "parameters", "share"],
        [
            *(
                [
                    row.name,
                    "×".join(map(str, row.output_shape)),
                    f"{row.parameters:,}",
                    output.percent(row.parameters / total),
                ]
                for row in rows
            ),
            ["total", "", f"{total:,}", ""],
        ],
    )


@app.command()
def schema() -> None:
    """Print the JSON schema of configs, for editors."""
    import json

    from imgrec_cli.config import json_schema

    output.line(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _with_data(path: Path, overrides: list[str] | None) -> "tuple[Config, Listing]":
    from imgrec_cli.config import load_config
    from imgrec_cli.dataset.scan import scan

    loaded = load_config(path, overrides or ())
    return loaded, scan(loaded.data)
