"""What MLflow gets of a run, read back by MLflow itself in other processes that cannot connect to anything."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imgrec_cli
from imgrec_cli.errors import InputError, MissingExtraError

pytestmark = pytest.mark.tf

READ = """\
import json, sys
import mlflow

client = mlflow.MlflowClient()
found = client.get_run(json.load(open(sys.argv[1] + "/run.json"))["mlflow_run"])
model = max(client.search_logged_models([found.info.experiment_id]), key=lambda model: model.creation_timestamp)
steps = {name: [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, name)]
         for name in found.data.metrics}
print(json.dumps({"name": found.info.run_name, "status": found.info.status, "params": found.data.params,
    "metrics": steps, "files": [file.path for file in client.list_artifacts(found.info.run_id)],
    "model": model.model_uri, "runs": len(client.search_runs([found.info.experiment_id]))}))
"""

PREDICT = """\
import json, sys
import mlflow

try:
    import tensorflow
except ImportError as error:
    assert "refused by the test" in str(error)
else:
    raise SystemExit("tensorflow could be imported")
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps({"answers": model.predict([open(sys.argv[2], "rb").read()]),
    "requirements": open(mlflow.pyfunc.get_model_dependencies(sys.argv[1])).read().split(),
    "loaded": [name for name in ("tensorflow", "keras", "jax") if name in sys.modules],
    "home": sys.modules["imgrec_cli"].__file__}))
"""


class Machine:
    """Runs Python in a folder of its own, with MLflow's default store there and every socket refused."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.attempts = folder, folder / "attempts.txt"
        # pytest and CI are where MLflow does not count its use by itself
        left_out = ("MLFLOW_", "PYTEST_", "CI")
        self.environment = {name: text for name, text in environment.items() if not name.startswith(left_out)}

    def python(self, *words: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def imgrec(self, *words: str) -> str:
        return self.python("-c", "from imgrec_cli.cli import main; main()", *words)

    def read(self, run: str) -> dict[str, Any]:
        return json.loads(self.python("-c", READ, run, MLFLOW_DISABLE_TELEMETRY="true"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, sockets_refused: Callable[[Path], dict[str, str]]) -> Machine:
    pytest.importorskip("mlflow", reason="needs the `mlflow` extra")
    folder = tmp_path_factory.mktemp("mlflow")
    return Machine(folder, sockets_refused(folder))


@pytest.fixture(scope="module")
def trained(machine: Machine, tiny_config: Path) -> dict[str, Any]:
    """What `imgrec train --mlflow --format json` printed."""
    kept = "train.keep_optimizer=true"
    printed = machine.imgrec("train", str(tiny_config), "--mlflow", "--set", kept, "--format", "json")
    return json.loads(printed.splitlines()[-1])["result"]


def test_config_epochs_and_scores_are_there_and_nothing_was_sent_elsewhere(
    machine: Machine, trained: dict[str, Any]
) -> None:
    run = machine.folder / trained["run"]
    found = machine.read(trained["run"])
    assert (found["name"], found["status"]) == (run.name, "FINISHED")
    assert found["params"]["train.epochs"] == "2"
    assert found["params"]["image.size"] == "[16, 16]"
    assert found["params"]["image.color"] == "gray"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for name in lines[0].keys() - {"epoch", "step"}:
        assert found["metrics"][name] == [[line["epoch"], line[name]] for line in lines], name
    figures = json.loads((run / "evaluation" / "test" / "metrics.json").read_text(encoding="utf-8"))
    best = trained["best_epoch"]
    assert found["metrics"]["test/accuracy"] == [[best, figures["accuracy"]]]
    assert found["metrics"]["test/macro_f1"] == [[best, figures["macro"]["f1"]]]
    assert found["metrics"]["test/ece"] == [[best, figures["calibration"]["ece"]]]
    assert {"config.yaml", "config.resolved.yaml", "evaluation"} <= set(found["files"])
    assert not machine.attempts.exists(), machine.attempts.read_text(encoding="utf-8")


def test_the_model_answers_in_a_process_without_tensorflow(
    machine: Machine, trained: dict[str, Any], tiny_config: Path
) -> None:
    from imgrec_cli import Classifier

    photo = tiny_config.parent / "shapes" / "cross" / "05.png"
    uri = machine.read(trained["run"])["model"]
    moved = machine.folder / "elsewhere"  # the model does not need the run
    shutil.move(machine.folder / trained["run"], moved)
    try:
        found = json.loads(
            machine.python(
                *("-c", PREDICT, uri, str(photo)),
                NOT_INSTALLED="tensorflow keras jax",
                MLFLOW_DISABLE_TELEMETRY="true",
            )
        )
    finally:
        shutil.move(moved, machine.folder / trained["run"])
    (answer,) = found["answers"]
    expected = Classifier.load(machine.folder / trained["run"]).predict(photo.read_bytes())
    assert answer == expected.as_dict()
    assert found["loaded"] == []
    assert Path(found["home"]).parent != Path(imgrec_cli.__file__).parent, "the model brings its own copy of imgrec"
    names = {text.split("==")[0] for text in found["requirements"]}
    assert {"ai-edge-litert", "numpy", "pillow", "mlflow-skinny", "pandas"} <= names
    assert not names & {"imgrec", "tensorflow", "tensorflow-cpu", "keras"}, "imgrec is on no index"


@pytest.mark.slow
def test_a_run_that_goes_on_goes_on_in_the_same_mlflow_run(machine: Machine, trained: dict[str, Any]) -> None:
    machine.imgrec("train", "--resume", trained["run"], "--set", "train.epochs=3", "--mlflow", "--quiet")
    found = machine.read(trained["run"])
    assert found["runs"] == 1
    assert found["status"] == "FINISHED"
    assert [step for step, _ in found["metrics"]["val/loss"]] == [1, 2, 3]


def test_missing_packages_are_said_before_training(tiny_config, tmp_path, monkeypatch):
    from imgrec_cli.api import train
    from imgrec_cli.tracking import mlflow

    monkeypatch.setattr(mlflow, "find_spec", lambda name: None if name in ("mlflow", "pandas") else object())
    with pytest.raises(MissingExtraError, match="--mlflow needs mlflow, pandas, which are not installed") as caught:
        train(tiny_config, runs=tmp_path / "runs", mlflow=True)
    assert ".[mlflow]" in caught.value.hint
    assert not (tmp_path / "runs").exists()


def test_a_store_that_does_not_answer_is_said_before_training_without_its_password(machine, tiny_config):
    code = (
        "import sys\nfrom imgrec_cli.cli import main\n"
        "sys.argv = ['imgrec', 'train', sys.argv[1], '--mlflow']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print('code', end.code)\n"
    )
    environment = {
        **machine.environment,
        "MLFLOW_TRACKING_URI": "http://jane:secret@127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "REFUSED": os.devnull,
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_config)],
        cwd=machine.folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.stdout == f"code {InputError.exit_code}\n"
    assert "MLflow does not answer at http://127.0.0.1:9" in done.stderr
    assert "look at MLFLOW_TRACKING_URI, or train without --mlflow" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
