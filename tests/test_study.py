"""A study that processes share: which trial is next, and what becomes of those whose process died."""

import os
import subprocess
import sys

import pytest

from imgrec_cli.config import Space
from imgrec_cli.errors import InputError
from imgrec_cli.rundir import Run

optuna = pytest.importorskip("optuna", reason="searching needs the `tune` extra")

CONFIG = """\
data: {folder: x}
model: {type: layers, layers: [{type: conv, filters: 8}, {type: flatten}]}
train: {epochs: 4}
search:
  optimizer.learning_rate: {low: 1e-4, high: 1e-1, log: true}
  model.layers.0.filters: {low: 4, high: 12}
  augment: {choices: [[], [{type: flip}]]}
"""

DIES = """\
import os, sys
from pathlib import Path
from imgrec_cli.rundir import Run
from imgrec_cli.study import Study
with Study(Run(Path(sys.argv[1]))).next_trial() as trial:
    trial.report([0.5])
    (trial.run.folder / "checkpoints" / "last.npz").write_text("half trained")
    print(trial.number, trial.settings)
    sys.stdout.flush()
    os._exit(9)
"""


@pytest.fixture
def study(tmp_path):
    from imgrec_cli.study import Study

    file = tmp_path / "c.yaml"
    file.write_text(CONFIG, encoding="utf-8")
    (tmp_path / "study").mkdir()
    return Study.begun(Run(tmp_path / "study"), Space.read(file), 5)


def tried(study, value, state="tried"):
    with study.next_trial() as trial:
        (trial.run.folder / "checkpoints" / "best.npz").write_text("weights")
        study.end(trial, value, state)
    return trial


def test_the_first_trial_is_the_config_itself(study):
    with study.next_trial() as trial:
        assert trial.settings == {"optimizer.learning_rate": 1e-3, "model.layers.0.filters": 8, "augment": []}
        assert study.others_at_work() == 1
    with study.next_trial() as trial:  # the process let go of the trial before: it is queued again
        assert trial.settings["model.layers.0.filters"] == 8


def test_there_are_as_many_trials_as_asked_and_the_best_keeps_its_weights(study):
    from imgrec_cli.study import Study

    other = Study(study.run)  # as another process
    trials = [tried(one, value) for one, value in ((study, 0.5), (other, 0.8), (study, 0.7), (other, 0.8))]
    trials.append(tried(study, None, "pruned"))
    for one in (study, other):
        with one.next_trial() as trial:
            assert trial is None
        assert one.best.number == 1
    assert {trial.settings["model.layers.0.filters"] for trial in trials} <= set(range(4, 13))
    assert all(1e-4 <= trial.settings["optimizer.learning_rate"] <= 1e-1 for trial in trials)
    assert all(trial.settings["augment"] in ([], [{"type": "flip"}]) for trial in trials)
    assert [one.number for one in study.ranked()] == [1, 3, 2, 0]
    assert [one.state for one in study.table()] == ["tried"] * 4 + ["pruned"]
    kept = [n for n in range(5) if study.run_of(n).best_checkpoint.exists()]
    assert kept == [1]
    study.extend(6)
    with other.next_trial() as trial:
        assert trial.number == 5


def test_the_trial_of_a_process_that_died_is_gone_on_with(study):
    tried(study, 0.5)
    died = subprocess.run(
        [sys.executable, "-c", DIES, str(study.run.folder)], capture_output=True, text=True, timeout=120
    )
    assert died.returncode == 9, died.stderr
    assert study.others_at_work() == 1
    with study.next_trial() as trial:
        assert trial.number == 2
        assert f"1 {trial.settings}" == died.stdout.strip()
        assert trial.run.last_checkpoint.read_text() == "half trained"
        study.end(trial, 0.6, "tried")
    assert not study.run_of(1).folder.exists()
    assert [(one.number, one.state) for one in study.table()] == [(0, "tried"), (2, "tried")]
    for value in (0.1, 0.2, 0.3):
        tried(study, value)
    with study.next_trial() as trial:
        assert trial is None  # five in all, the dead one not counted


def test_a_process_on_another_host_is_dead_after_a_minute_of_silence(study):
    code = f"import socket\nsocket.gethostname = lambda: 'elsewhere'\n{DIES}"
    died = subprocess.run(
        [sys.executable, "-c", code, str(study.run.folder)], capture_output=True, text=True, timeout=120
    )
    assert died.returncode == 9, died.stderr
    beat = study.run_of(0).folder / ".beat"
    assert beat.exists()
    assert tried(study, 0.5).number == 1  # that one may be at work still
    os.utime(beat, (beat.stat().st_atime, beat.stat().st_mtime - 100))
    with study.next_trial() as trial:
        assert f"0 {trial.settings}" == died.stdout.strip()


def test_hopeless_trials_end_early(study):
    from imgrec_cli.study import Pruned

    study.extend(20)
    for number in range(6):
        with study.next_trial() as trial:
            trial.report([0.5, 0.6 + number / 100, 0.8])
            study.end(trial, 0.8, "tried")
    with study.next_trial() as trial:
        trial.report([0.1])  # the first epochs say little
        with pytest.raises(Pruned):
            trial.report([0.1, 0.2])


def test_another_config_is_refused(study, tmp_path):
    from imgrec_cli.study import Study

    file = tmp_path / "c.yaml"
    Study.begun(study.run, Space.read(file), 5)
    file.write_text(CONFIG.replace("high: 12", "high: 13"), encoding="utf-8")
    with pytest.raises(InputError, match="searches with another config") as error:
        Study.begun(study.run, Space.read(file), 5)
    assert "without a config" in error.value.hint


def test_searching_without_optuna_names_the_command(monkeypatch):
    from imgrec_cli.errors import MissingExtraError
    from imgrec_cli.study import require_optuna

    monkeypatch.setattr("imgrec_cli.study.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as error:
        require_optuna()
    assert '".[tune]"' in error.value.hint
