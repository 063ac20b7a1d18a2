"""The page of a search ranks its trials by the metric they were judged by."""

import re

import pytest

from imgrec_cli.reporting.search import write_search_report
from imgrec_cli.rundir import Run


@pytest.mark.parametrize(
    ("metric", "order"),
    [("val/accuracy", "120"), ("val/f1", "120"), ("val/recall", "120"), ("val/precision", "120"), ("val/loss", "021")],
)
def test_the_best_trial_stands_first(tmp_path, metric, order):
    run = Run.create(tmp_path, "search")
    run.update_record(
        name="search",
        started="2026-01-01T00:00:00Z",
        status="finished",
        search={"trials": 3, "best": int(order[0]), "value": 0.5},
        scores={"split": "test", "accuracy": 0.5, "accuracy_interval": [0.4, 0.6]},
    )
    trials = [
        {"number": number, "state": "tried", "value": value, "seconds": 1.0, "settings": {"seed": number}}
        for number, value in enumerate([0.5, 0.9, 0.7])
    ]
    html = write_search_report(run, ["seed"], trials, {}, {}, metric).read_text(encoding="utf-8")
    assert "".join(re.findall(r'<th scope="row">(\d)</th>', html)) == order
