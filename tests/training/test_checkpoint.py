"""Checkpoints come back to the bit, and damaged ones are said to be."""

import numpy as np
import pytest

from imgrec_cli.errors import TrainingError

pytestmark = pytest.mark.tf


@pytest.fixture
def variables():
    import keras

    generator = np.random.default_rng(0)
    return [keras.Variable(generator.normal(size=shape).astype("float32")) for shape in [(3, 4), (2,), ()]]


def test_what_is_written_comes_back_to_the_bit(tmp_path, variables):
    import keras

    from imgrec_cli.training import checkpoint

    before = [keras.ops.convert_to_numpy(v).copy() for v in variables]
    checkpoint.write(tmp_path / "last.npz", {"state": variables}, {"epoch": 3})
    for variable in variables:
        variable.assign(keras.ops.zeros_like(variable))
    groups, meta = checkpoint.read(tmp_path / "last.npz")
    checkpoint.restore(variables, groups["state"], tmp_path / "last.npz")
    assert meta == {"epoch": 3}
    for variable, expected in zip(variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), expected)


def test_a_cut_off_checkpoint_is_named(tmp_path, variables):
    from imgrec_cli.training import checkpoint

    path = tmp_path / "last.npz"
    checkpoint.write(path, {"state": variables}, {})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        checkpoint.read(path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, variables):
    from imgrec_cli.training import checkpoint

    path = tmp_path / "last.npz"
    checkpoint.write(path, {"state": variables[:2]}, {})
    groups, _ = checkpoint.read(path)
    with pytest.raises(TrainingError, match="holds 2 arrays that do not fit the model's 3"):
        checkpoint.restore(variables, groups["state"], path)
