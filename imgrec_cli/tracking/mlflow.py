"""A run in MLflow: its config, the figures of every epoch, the scores, and the bundle as a model without TensorFlow."""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imgrec_cli.errors import InputError, Interrupted, MissingExtraError, install_command
from imgrec_cli.progress import EpochEnd, Listener, Note, Warn
from imgrec_cli.rundir import Run

PACKAGES = ("mlflow", "pandas", "sqlalchemy", "alembic")
MODEL = "model"
_SCORES = ("accuracy", "balanced_accuracy", "mcc", "kappa", "loss")

# What MLflow does on its own account and imgrec does not: count its use, write to standard output, wait for minutes.
# Whoever has set one of these keeps it.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def require_mlflow() -> None:
    """Raise MissingExtraError where packages of the extra are missing, InputError where MLflow's store does not answer.

    The store is the one of MLFLOW_TRACKING_URI, else `mlflow.db` in the current folder.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"--mlflow needs {', '.join(missing)}, which {are} not installed", install_command("mlflow")
        )
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    try:
        mlflow.MlflowClient().search_experiments(max_results=1)
    except Exception as error:  # each kind of store raises its own
        raise InputError(
            f"MLflow does not answer at {_without_password(mlflow.get_tracking_uri())}: {_first_line(error)}",
            "look at MLFLOW_TRACKING_URI, or train without --mlflow",
        ) from error


@contextmanager
def tracked(run: Run, config: Mapping[str, Any], on_event: Listener) -> Iterator[Listener]:
    """A block that trains, with the listener that hands every event on and logs the epochs; at its end all is logged.

    `config` are the resolved values by section. The MLflow run is kept in the run's record, and one that goes on goes
    on there too. What cannot be logged is a warning: the training is worth more than its log. `require_mlflow` says
    before training whether MLflow can be used.
    """
    import mlflow

    def done(action: Callable[[], object]) -> bool:
        try:
            action()
        except Exception as error:  # each kind of store raises its own
            on_event(Warn(f"MLflow: not logged: {_first_line(error)}"))
            return False
        return True

    opened = done(lambda: _begin(run))
    begun = opened and done(lambda: _log_config_and_epochs(run, config))
    if opened and not begun:  # else what the caller logs next would go into it
        done(lambda: mlflow.end_run("FAILED"))
    if begun:
        on_event(Note(f"MLflow: run {run.name} at {_without_password(mlflow.get_tracking_uri())}"))
    goes_on = begun  # after a failure the rest is logged at the end, so that no epoch waits for a store that is gone

    def listen(event: object) -> None:
        nonlocal goes_on
        on_event(event)  # type: ignore[arg-type]
        if isinstance(event, EpochEnd) and goes_on:
            epoch, metrics = event.epoch, event.metrics
            goes_on = done(lambda: mlflow.log_metrics(metrics, step=epoch))

    try:
        yield listen
        if begun:
            done(lambda: _log_config_and_epochs(run, config))
            done(lambda: _log_results(run))
    except BaseException as error:
        if begun:
            stopped = isinstance(error, KeyboardInterrupt | Interrupted)
            done(lambda: mlflow.end_run("KILLED" if stopped else "FAILED"))
        raise
    if begun:
        done(mlflow.end_run)


def _begin(run: Run) -> None:
    """Go on with the MLflow run of the record where the store has it, else begin one, inside of one that is open."""
    import mlflow
    from mlflow.exceptions import MlflowException

    nested = mlflow.active_run() is not None
    known = run.record.get("mlflow_run")
    if known is not None:
        try:
            mlflow.start_run(known, nested=nested)
            return
        except MlflowException:  # another store, or it was deleted there
            pass
    run.update_record(mlflow_run=mlflow.start_run(run_name=run.name, nested=nested).info.run_id)


def _log_config_and_epochs(run: Run, config: Mapping[str, Any]) -> None:
    """Log what is not there yet; MLflow lets no parameter be changed, such as `train.epochs` of a run made longer."""
    import mlflow

    id_ = mlflow.active_run().info.run_id
    client = mlflow.MlflowClient()
    there = client.get_run(id_).data.params
    mlflow.log_params({name: value for name, value in _parameters(config).items() if name not in there})
    for file in (run.config_file, run.resolved_config_file):
        if file.is_file():
            mlflow.log_artifact(str(file))
    epochs = {metric.step for metric in client.get_metric_history(id_, "val/loss")}
    for line in run.read_metrics():
        if line["epoch"] not in epochs:
            figures = {name: value for name, value in line.items() if name not in ("epoch", "step")}
            mlflow.log_metrics(figures, step=line["epoch"])


def _log_results(run: Run) -> None:
    import mlflow

    record = run.record
    split = record["scores"]["split"]
    file = run.evaluation_folder(split) / "metrics.json"
    figures = json.loads(file.read_text(encoding="utf-8"))
    scores = {name: figures[name] for name in _SCORES}
    scores |= {f"macro_{name}": figures["macro"][name] for name in ("precision", "recall", "f1")}
    scores["ece"] = figures["calibration"]["ece"]
    logged = {f"{split}/{name}": value for name, value in scores.items() if value is not None}
    mlflow.log_metrics(logged, step=record["best_epoch"])
    mlflow.log_artifact(str(file), f"evaluation/{split}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Any type hint", UserWarning)  # answers are JSON of several types
        mlflow.pyfunc.log_model(
            name=MODEL,
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"bundle": str(run.bundle_folder)},
            # imgrec goes along as code: a requirement by its name would be looked up on an index where it is not
            code_paths=[str(Path(__file__).parents[1])],
            pip_requirements=[f"{name}=={version(name)}" for name in _requirements()],
        )


def _requirements() -> list[str]:
    """The distributions that the model needs: what imgrec itself installs, and what MLflow loads a model with."""
    base = [line for line in requires("imgrec") or [] if "extra ==" not in line]
    return [*(re.split(r"[^\w.-]", line)[0] for line in base), "mlflow-skinny", "pandas"]


def _parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """`section.key` → value; lists and what lies deeper are JSON."""
    found = {}
    for section, values in config.items():
        entries = values.items() if isinstance(values, Mapping) else [("", values)]
        for key, value in entries:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[f"{section}.{key}" if key else section] = text
    return found


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return _without_password(lines[0][:300])


def _without_password(text: str) -> str:
    return re.sub(r"//[^@/\s]*@", "//", text)
