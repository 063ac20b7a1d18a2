"""The command line: one file per command or group; a command parses, calls one verb, prints."""

import io
import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from imgrec_cli import __version__
from imgrec_cli.cli import (
    bench,
    bundle,
    compare,
    compress,
    config,
    data,
    evaluate,
    explain,
    export,
    info,
    output,
    predict,
    report,
    reproduce,
    runs,
    serve,
    train,
    tune,
)
from imgrec_cli.errors import ImgrecError, InputError, Interrupted

INTERRUPTED = 130


class InOrder(TyperGroup):
    """Lists commands as they are used; Typer would put groups after all single commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        order = ["train", "tune", "bench", "config", "evaluate", "compare", "report", "explain", "data", "export"]
        order = [*order, "compress", "bundle", "predict", "serve", "reproduce", "runs", "info"]
        return sorted(super().list_commands(ctx), key=order.index)


app = typer.Typer(
    name="imgrec",
    cls=InOrder,
    help="From a folder of images to a tested, shipped classifier.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel="Start")(train.train)
app.command(rich_help_panel="Start")(tune.tune)
app.add_typer(config.app, rich_help_panel="Start")
app.command(rich_help_panel="Start")(bench.bench)
app.command(rich_help_panel="Judge")(evaluate.evaluate)
app.command(rich_help_panel="Judge")(compare.compare)
app.command(rich_help_panel="Judge")(report.report)
app.command(rich_help_panel="Judge")(explain.explain)
app.add_typer(data.app, rich_help_panel="Data")
app.command(rich_help_panel="Ship")(export.export)
app.command(rich_help_panel="Ship")(compress.compress)
app.add_typer(bundle.app, rich_help_panel="Ship")
app.command(rich_help_panel="Ship")(predict.predict)
app.command(rich_help_panel="Ship")(serve.serve)
app.command(rich_help_panel="Look after")(reproduce.reproduce)
app.add_typer(runs.app, rich_help_panel="Look after")
app.command(rich_help_panel="Look after")(info.info)


def _version(wanted: bool) -> None:
    if wanted:
        output.line(f"imgrec {__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (also IMGREC_DEBUG=1).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if debug:
        os.environ["IMGREC_DEBUG"] = "1"


def main() -> None:
    """Run the command line; every error becomes a message and a stable exit code (docs/exit-codes.md)."""
    _hide_native_messages()
    for stream in (sys.stdout, sys.stderr):
        # a terminal is written to in its own encoding, which may lack letters of a file's name; programs read UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    # Pillow warns of odd files as it reads them; those that cannot be read are told by name, once
    warnings.filterwarnings("ignore", module="PIL")
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            output.note("interrupted")
        raise
    except Exception as error:
        if os.environ.get("IMGREC_DEBUG"):
            raise
        known = _as_known(error)
        output.failure(known, "" if isinstance(known, Interrupted) else "error: ")
        from imgrec_cli.machine import peers_announced

        if peers_announced():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(known.exit_code)  # at the end of Python JAX would wait for the others, and abort
        sys.exit(known.exit_code)


def _hide_native_messages() -> None:
    """Let standard error be Python's alone: libraries such as libtiff write lines there for every damaged file, which
    is told by name anyway. IMGREC_DEBUG and --debug show them."""
    wanted = os.environ.get("IMGREC_DEBUG") or "--debug" in sys.argv
    try:
        if wanted or sys.stderr.fileno() != 2:
            return
        ours = os.dup(2)
    except (AttributeError, OSError, ValueError):  # no standard error, or not a file
        return
    sys.stderr = open(ours, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)  # noqa: SIM115, PTH123
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _as_known(error: Exception) -> ImgrecError:
    """The error as one of ours: a file that cannot be reached is the user's to mend, the rest are faults of imgrec."""
    match error:
        case ImgrecError():
            return error
        case OSError(filename=str(path), strerror=str(reason)):
            return InputError(f"{path}: {reason[:1].lower()}{reason[1:]}")
    return ImgrecError(
        f"a fault of imgrec: {type(error).__name__}: {error}",
        "run it again as imgrec --debug … and report it with the output of imgrec info",
    )
