"""What happens to a training where MLflow fails, with a module in MLflow's place."""

import sys
from types import SimpleNamespace

from imgrec_cli.progress import Note, Warn
from imgrec_cli.rundir import Run
from imgrec_cli.tracking import mlflow as tracking


def test_a_run_of_mlflow_whose_config_cannot_be_logged_is_ended(tmp_path, monkeypatch):
    ended: list[str] = []
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(end_run=ended.append))

    def refuse(*_: object) -> None:
        raise OSError("the store is read-only")

    monkeypatch.setattr(tracking, "_begin", lambda run: None)
    monkeypatch.setattr(tracking, "_log_config_and_epochs", refuse)
    heard: list[object] = []
    with tracking.tracked(Run.create(tmp_path, "x"), {}, heard.append) as listen:
        assert ended == ["FAILED"]
        listen(Note("goes on"))
    assert ended == ["FAILED"]
    assert heard == [Warn("MLflow: not logged: the store is read-only"), Note("goes on")]
