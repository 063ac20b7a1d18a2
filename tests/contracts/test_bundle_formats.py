"""Bundles of every released format stay readable: tests/fixtures/README.md."""

import json
from pathlib import Path

import numpy as np
import pytest

from imgrec_cli.bundle import FORMAT_VERSION
from imgrec_cli.classifier import Classifier

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_every_format_has_a_bundle() -> None:
    assert {path.name for path in FIXTURES.iterdir() if path.is_dir()} == {
        f"bundle-{n}" for n in range(1, FORMAT_VERSION + 1)
    }


@pytest.mark.parametrize("number", range(1, FORMAT_VERSION + 1))
def test_an_old_bundle_answers_as_when_it_was_made(number: int) -> None:
    folder = FIXTURES / f"bundle-{number}"
    classifier = Classifier.load(folder)
    classifier.verify()
    answers = json.loads((FIXTURES / f"bundle-{number}-answers.json").read_text(encoding="utf-8"))
    with np.load(folder / "selftest.npz", allow_pickle=False) as stored:
        np.testing.assert_allclose(classifier.scores(stored["pixels"]), answers, atol=1e-3)
    assert classifier.class_names == ["circle", "cross", "square"]
