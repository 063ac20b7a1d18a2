"""imgrec train"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.options import FormatOption, QuietOption, SetOption

if TYPE_CHECKING:
    from imgrec_cli.rundir import Run


def train(
    config: Annotated[Path | None, typer.Argument(help="YAML file of the experiment.", show_default=False)] = None,
    set_: SetOption = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with an unfinished run from where it stopped; auto: the newest of this config, if any.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2, metavar="N", help="Cross-validate: N trainings, each judged on another part of the images."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="N trainings on one split, each from another seed.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write every epoch's figures for TensorBoard, into the run.")
    ] = False,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Log config, figures, scores and model to MLflow (MLFLOW_TRACKING_URI).")
    ] = False,
    quiet: QuietOption = False,
    format_: FormatOption = output.Format.human,
) -> None:
    """Train a classifier, ship it and judge it.

    Ctrl-C saves all state and stops; imgrec train --resume RUN goes on to the same bits.

    Example: imgrec train configs/quickstart.yaml --set train.epochs=5
    """
    from imgrec_cli import api
    from imgrec_cli.cli.job import watch_over_peers

    watch_over_peers()
    with output.ProgressPrinter(format_, quiet) as progress:
        run = api.train(
            config,
            set_ or (),
            resume=resume,
            folds=folds,
            seeds=seeds,
            tensorboard=tensorboard,
            mlflow=mlflow,
            on_event=progress,
        )
    record = run.record
    if record["status"] != "finished":  # this process is not the one that writes it
        output.note(f"trained with its peers; the run is {run.folder}")
        return
    scores = record["scores"]
    if format_ is output.Format.json:
        output.result("train", {"run": str(run.folder), **record})
        return
    if "repeats" in record:
        _print_repeats(run)
        return
    from imgrec_cli.evaluation import CAVEATS

    caveat = CAVEATS.get(scores["split"])
    output.line(
        f"{scores['split']}: accuracy {output.percent(scores['accuracy'])} on {scores['images']} images, "
        f"macro F1 {output.percent(scores['macro_f1'])}" + (f" ({caveat})" if caveat else "")
    )
    output.line(f"best epoch {record['best_epoch']}, {record['seconds']:.0f} s in all, bundle in {run.bundle_folder}")
    example = run.read_examples(scores["split"])[0]
    output.line(f"report: {run.report_file} (it embeds pictures)")
    output.line("Try it:")
    output.line(f"  {_program()} predict -m {_quoted(str(run.folder))} {_quoted(_shortest(example.file))}")


def _print_repeats(run: "Run") -> None:
    record = run.record
    repeats, scores = record["repeats"], record["scores"]
    kind, split, percent = repeats["kind"], scores["split"], output.percent
    names = list(repeats["figures"])
    output.table(
        [f"{kind.removesuffix('s')}, {split}", *names],
        [
            *(
                [str(place + 1), *(_shown(name, repeats["figures"][name]["values"][place]) for name in names)]
                for place in range(repeats["number"])
            ),
            *(
                [title, *(_shown(name, repeats["figures"][name][key]) for name in names)]
                for title, key in (("mean", "mean"), ("deviation", "deviation"))
            ),
            ["95 % from", *(_shown(name, repeats["figures"][name]["interval"][0]) for name in names)],
            ["95 % to", *(_shown(name, repeats["figures"][name]["interval"][1]) for name in names)],
        ],
    )
    if kind == "folds":
        low, high = scores["accuracy_interval"]
        output.line(
            f"all {scores['images']:,} images, each judged once by the model that was not trained on it: accuracy "
            f"{percent(scores['accuracy'])}, 95 % interval {percent(low)} to {percent(high)}"
        )
    output.line(f"{record['seconds']:.0f} s in all; report: {run.report_file}")


def _shown(name: str, value: float) -> str:
    return f"{value:.3f}" if name == "mcc" else output.percent(value)


def _program() -> str:
    """What to type for imgrec: its name where that is found, else the path that this process was started by."""
    started_by = Path(sys.argv[0])
    if shutil.which("imgrec") or not started_by.is_file() or started_by.suffix == ".py":
        return "imgrec"
    return _quoted(_shortest(str(started_by.absolute())))


def _shortest(file: str) -> str:
    """A path as people would type it: relative where the file lies below the current folder."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


def _quoted(text: str) -> str:
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)
