"""Options that several commands share, spelt once."""

from pathlib import Path
from typing import Annotated

import typer

from imgrec_cli.cli.output import Format

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one key of the config, such as train.epochs=5; repeatable."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
FormatOption = Annotated[Format, typer.Option("--format", help="For people, or JSON lines for programs.")]
ModelOption = Annotated[
    Path | None,
    typer.Option("-m", "--model", metavar="RUN|BUNDLE", help="Run or bundle; the newest finished run by default."),
]
MinConfidenceOption = Annotated[
    float, typer.Option(min=0, max=1, help="Below this probability the answer is: not sure.")
]
CoverageOption = Annotated[
    float | None,
    typer.Option(min=0.5, max=0.99, help="Name the classes among which the true one is that often, such as 0.95."),
]
