"""The choice of precision, with the measurement replaced: what is asked for, what the hardware has, what it gains."""

import sys

import pytest

from imgrec_cli.config import load_config

pytestmark = pytest.mark.tf


@pytest.fixture
def choose(monkeypatch, tiny_config):
    """choose(seconds, epochs=…, bfloat16=…, device=…): the precision chosen where a step takes so long."""
    from imgrec_cli.training import speed
    from imgrec_cli.training.runtime import Machine

    def run(seconds, *, asked="auto", epochs=10**5, bfloat16=True, device="cpu"):
        monkeypatch.setattr(speed, "step_seconds", lambda config, classes: seconds[config.train.precision])
        config = load_config(tiny_config, [f"train.epochs={epochs}", f"train.precision={asked}"])
        return speed.choose_precision(config, 3, 10_000, Machine("tensorflow", device, "x", 1, bfloat16))

    return run


FASTER, EQUAL = {"float32": 2.0, "bfloat16": 1.0}, {"float32": 1.05, "bfloat16": 1.0}


def test_what_is_asked_for_is_taken(choose):
    assert choose(FASTER, asked="float32") == ("float32", "as asked")
    assert choose(EQUAL, asked="bfloat16") == ("bfloat16", "as asked")


def test_bfloat16_has_to_be_worth_it(choose):
    assert choose(FASTER) == ("bfloat16", "bfloat16 runs at 2.00× the speed of float32 here")
    assert choose(EQUAL) == ("float32", "bfloat16 runs at 1.05× the speed of float32 here")


def test_a_device_without_bfloat16_and_a_short_training_are_not_probed(choose):
    assert choose({}, bfloat16=False) == ("float32", "bfloat16 is not known to be fast here")
    assert choose({}, bfloat16=False, device="gpu:0") == ("float32", "bfloat16 is not known to be fast here")
    assert choose({}, epochs=1) == ("float32", "a short training needs no more")


def test_a_gpu_takes_bfloat16(choose):
    assert choose({}, device="gpu:0") == ("bfloat16", "the GPU has it")


def test_bench_measures_every_part(tiny_config):
    from imgrec_cli import api

    speeds, memory = api.bench(tiny_config, ["augment=[{type: flip}]"])
    for part in (speeds.decode, speeds.input, speeds.augment, speeds.step, speeds.whole, speeds.matrix_product_flops):
        assert part > 0
    assert memory > 50e6 or sys.platform == "win32"
    assert speeds.verdict.startswith(("compute-bound at ", "input-bound: "))
