"""A smaller model within a budget: the split of a wide layer against plain numpy, students, and the command."""

import json
import shutil

import numpy as np
import pytest

from imgrec_cli.config import load_config
from imgrec_cli.errors import InputError

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def trained(tiny_run):
    from imgrec_cli.rundir import Run
    from imgrec_cli.training.export import Trained

    return Trained.of_run(Run.open(tiny_run), lambda event: None)


@pytest.fixture
def run(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    return tmp_path / "run"


def wide(tiny_config, units=24):
    """The tiny network with a wide dense layer before the last."""
    dense = f'{{"type":"dense","units":{units},"activation":"relu"}}'
    layers = f'[{{"type":"conv","filters":4}},{{"type":"flatten"}},{dense}]'
    return load_config(tiny_config, [f"model.layers={layers}", "train.precision=float32"])


def test_the_largest_dense_layer_is_found_where_it_is_worth_it(tiny_config, trained):
    from imgrec_cli.training.smaller import large_dense

    assert large_dense(wide(tiny_config), 3) == 2
    assert large_dense(trained.config, 3) is None


def test_a_split_layer_keeps_the_main_directions_of_its_outputs(tiny_config, trained):
    import keras

    from imgrec_cli.training.export import Trained
    from imgrec_cli.training.model import shipped_model
    from imgrec_cli.training.smaller import parameters, split_dense

    config, dataset = wide(tiny_config), trained.dataset
    keras.utils.set_random_seed(0)
    model = shipped_model(config, 3)
    whole = Trained.of(config, dataset, model, lambda event: None)
    found = list(split_dense(whole, 10**9, lambda event: None))
    ranks = [rank for rank, _ in found]
    assert ranks == sorted(set(ranks), reverse=True)
    rank, smaller = found[-1]
    kernel, bias = model.get_layer("dense_3").get_weights()
    cut = keras.Model(model.input, model.get_layer("dense_3").input)
    pixels = dataset.pixels[dataset.rows("train")]
    outputs = np.asarray(cut(pixels)).astype(np.float64) @ kernel.astype(np.float64) + bias
    centred = outputs - outputs.mean(axis=0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    expected = np.maximum((left[:, :rank] * values[:rank]) @ right[:rank] + outputs.mean(axis=0), 0)
    second = keras.Model(smaller.model.input, smaller.model.get_layer("dense_4").output)
    np.testing.assert_allclose(np.asarray(second(pixels)), expected, atol=1e-3)
    assert (values[:rank] ** 2).sum() / (values**2).sum() >= 0.95
    assert parameters(smaller.config, 3) == smaller.model.count_params() < parameters(config, 3)


def test_students_fit_and_are_of_the_same_kind(tiny_config):
    from imgrec_cli.training.smaller import parameters, students

    config = wide(tiny_config)
    most = parameters(config, 3) // 2
    found = students(config, 3, most)
    assert found
    assert all(parameters(student, 3) <= most for _, student in found)
    assert {name for name, _ in students(config, 3, 10**9)} == {
        "2/3 of the input's side",
        "0.5 × width",
        "0.5 × width and 2/3 of the input's side",
        "0.25 × width",
        "0.25 × width and 2/3 of the input's side",
    }


def test_a_student_learns_the_teachers_answers(tiny_config, trained):
    from imgrec_cli.training.smaller import distilled

    config = load_config(tiny_config, ["train.epochs=20", "image.size=[11, 11]", "train.precision=float32"])
    student = distilled(trained, config.model_copy(update={"image": config.image}), lambda event: None)
    assert student.dataset.pixels.shape[1:3] == (11, 11)
    teacher, answers = trained.answers.scores, student.answers.scores
    assert np.abs(answers - teacher).mean() < np.abs(1 / 3 - teacher).mean() + 0.2
    assert len(answers) == len(teacher)


def test_the_command_writes_the_smallest_that_fits(imgrec, run):
    done = imgrec("compress", run, "--max-size", "1MB", "--max-drop", "100")
    assert done.code == 0, done.err
    frontier = json.loads((run / "compressed" / "frontier.json").read_text(encoding="utf-8"))
    fitting = [one for one in frontier["candidates"] if one["fits"]]
    assert frontier["chosen"]["bytes"] == min(one["bytes"] for one in fitting)
    assert imgrec("bundle", "verify", run / "compressed" / "bundle").code == 0
    assert (run / "compressed" / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert "test accuracy" in done.out
    assert sorted(path.name for path in (run / "compressed").iterdir()) == ["bundle", "frontier.json", "frontier.png"]


def test_where_none_fits_it_is_said_how_near_it_came(imgrec, run):
    done = imgrec("compress", run, "--max-size", "500B", "--max-drop", "0.5")
    assert done.code == 8
    assert "models is within 500 bytes at 0.5 points: within the loss, " in done.err
    assert not (run / "compressed" / "bundle").exists()


@pytest.mark.parametrize(("text", "size"), [("1MB", 1_000_000), ("2.5 kB", 2500), ("1MiB", 1 << 20), ("700", 700)])
def test_sizes_are_read_with_their_unit(text, size):
    from imgrec_cli.cli.compress import _bytes

    assert _bytes(text) == size


def test_what_is_no_size_is_said():
    from imgrec_cli.cli.compress import _bytes

    with pytest.raises(InputError, match="--max-size much: not a size"):
        _bytes("much")


def test_a_student_sees_no_mixed_pictures_since_its_teacher_answers_single_ones(tiny_config):
    from imgrec_cli.training.smaller import without_mixing

    config = load_config(tiny_config, ["augment=[{type: flip}, {type: mixup}, {type: erase}, {type: cutmix}]"])
    assert [step.type for step in without_mixing(config).augment] == ["flip", "erase"]


def test_no_student_is_smaller_than_its_network_can_be(tiny_config):
    from imgrec_cli.training.smaller import students

    def sides(side):
        found = load_config(
            tiny_config,
            [
                *(f"image.size=[{side}, {side}]", "image.color=rgb"),
                "model={type: backbone, name: xception, weights: none}",
            ],
        )
        return [student.image.size for _, student in students(found, 3, 10**9)]

    assert sides(120) == [(80, 80)]
    assert sides(90) == []  # 60 pixels are less than the 71 that Xception takes
