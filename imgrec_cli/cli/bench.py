"""imgrec bench"""

from pathlib import Path
from typing import Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.options import FormatOption, SetOption


def bench(
    config: Annotated[Path, typer.Argument(help="YAML file of the experiment.", show_default=False)],
    set_: SetOption = None,
    format_: FormatOption = output.Format.human,
) -> None:
    """Measure how fast a config trains here, what limits it, and what an epoch will take.

    Example: imgrec bench configs/document-001.yaml --set data.folder=photos
    """
    from dataclasses import asdict

    from imgrec_cli import api

    with output.ProgressPrinter(output.Format.human, format_ is output.Format.json) as progress:
        speeds, memory = api.bench(config, set_ or (), on_event=progress)
    if format_ is output.Format.json:
        output.result("bench", {**asdict(speeds), "peak_memory_bytes": memory, "verdict": speeds.verdict})
        return
    rows = [
        ("decode (once, before training)", speeds.decode),
        ("input from the pack", speeds.input),
        *([("augmentation alone", speeds.augment)] if speeds.augment else []),
        ("step on images in memory", speeds.step),
        ("whole", speeds.whole),
    ]
    output.table(["part", "images/s"], ([name, f"{value:,.0f}"] for name, value in rows))
    step, product = speeds.step_flops / 1e9, speeds.matrix_product_flops / 1e9
    output.line(f"step {step:.0f} GFLOP/s, large matrix product {product:.0f} GFLOP/s")
    peak = f"; peak memory {output.size(memory)}" if memory else ""
    output.line(f"an epoch takes about {speeds.epoch_seconds:.1f} s{peak}")
    output.line(speeds.verdict)
