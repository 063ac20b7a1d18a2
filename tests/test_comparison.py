"""Runs compared: the same images, the tests, the words; on evaluations that are written here, without TensorFlow."""

import json
from pathlib import Path

import pytest

from imgrec_cli.atomic import write_csv
from imgrec_cli.comparison import compare
from imgrec_cli.errors import InputError
from imgrec_cli.judged import read_judged
from imgrec_cli.rundir import RecordedExample, Run

NAMES = ("cat", "dog")
CONFIG = "data: {folder: /photos}\nmodel: {type: layers, layers: [{type: flatten}, {type: dropout, rate: 0.5}]}\n"


def judged_run(
    folder: Path, wrong: set[int], images: range = range(100), split: str = "test", config: str = CONFIG, names=NAMES
) -> Path:
    """A run whose evaluation answers the images by number: the even ones show the first class, the odd the second."""
    folder.mkdir(parents=True)
    run = Run(folder)
    run.update_record(status="finished", started="2026-01-31T12:00:00Z", seconds=12.5)
    run.resolved_config_file.write_text(config, encoding="utf-8")
    # the same picture may lie elsewhere in another run: it is known by its content
    paths = [f"{folder.name}/{number}.png" for number in images]
    run.write_examples(
        RecordedExample(split, names[number % 2], path, path, f"digest{number:04d}")
        for number, path in zip(images, paths, strict=True)
    )
    run.evaluation_folder(split).mkdir(parents=True)
    write_csv(
        run.evaluation_folder(split) / "predictions.csv",
        ["path", "label", "predicted", *(f"score:{name}" for name in names), "unfamiliarity"],
        (
            [path, names[number % 2], names[(number + (number in wrong)) % 2], "0.5", "0.5", "nan"]
            for number, path in zip(images, paths, strict=True)
        ),
    )
    return folder


def test_a_real_difference_is_told_from_chance(tmp_path, imgrec):
    base = judged_run(tmp_path / "base", set(range(30)))
    new = judged_run(tmp_path / "new", set(range(10)), config=CONFIG.replace("rate: 0.5", "rate: 0.2"))
    near = judged_run(tmp_path / "near", set(range(28)))
    done = imgrec("compare", base, new, near)
    assert done.code == 0
    assert "test: 100 images" in done.out
    assert "new against base: really better in accuracy (+20.0 points, p < 0.001)" in done.out
    assert "near against base: no real difference in accuracy at this size (+2.0 points, p = 0.500)" in done.out
    assert "right where the other is wrong: 20 and 0 images" in done.out
    assert "model.layers.1.rate" in done.out
    assert "config: no difference" in done.out
    assert "12.5 s" in done.out


def test_a_gate_ends_with_8_where_a_run_is_really_worse(tmp_path, imgrec):
    base = judged_run(tmp_path / "base", set(range(10)))
    worse = judged_run(tmp_path / "worse", set(range(30)))
    slightly = judged_run(tmp_path / "slightly", set(range(12)))
    done = imgrec("compare", base, worse, "--fail-if-worse", "accuracy")
    assert (done.code, done.err) == (
        8,
        "error: worse: accuracy fell from 0.9000 to 0.7000, really worse (p < 0.001)\n",
    )
    assert imgrec("compare", base, slightly, "--fail-if-worse", "accuracy").code == 0
    assert imgrec("compare", base, slightly, "--fail-if-worse", "accuracy=0.01").code == 8
    assert imgrec("compare", base, slightly, "--fail-if-worse", "recall.cat=0.02").code == 0
    assert imgrec("compare", worse, base, "--fail-if-worse", "macro.f1=0").code == 0


def test_json_holds_the_words_too(tmp_path, imgrec):
    base = judged_run(tmp_path / "base", set(range(10)))
    new = judged_run(tmp_path / "new", set(range(40)))
    done = imgrec("compare", base, new, "--format", "json", "--fail-if-worse", "f1.dog")
    result = json.loads(done.out)["result"]
    (against,) = result["against"]
    figures = {row["figure"]: row for row in against["figures"]}
    assert figures["accuracy"]["verdict"] == figures["f1.dog"]["verdict"] == "really worse"
    assert figures["accuracy"]["difference"] == pytest.approx(-0.3)
    assert (against["only_base"], against["only_new"]) == (30, 0)
    assert result["failed"]
    assert done.code == 8


def test_only_images_that_all_were_judged_on_count(tmp_path):
    base = judged_run(tmp_path / "base", set(range(10)), range(80))
    new = judged_run(tmp_path / "new", set(range(10)), range(20, 100))
    found = compare([read_judged(path, "test") for path in (base, new)])
    assert found.images == 60
    assert found.notes == ["the images are not the same: compared on the 60 that all have, of 80 of base, 80 of new"]
    assert found.figures[0]["accuracy"][0] == 1.0


def test_images_with_another_label_are_left_out_and_told(tmp_path):
    base = judged_run(tmp_path / "base", set())
    new = judged_run(tmp_path / "new", set())
    predictions = new / "evaluation" / "test" / "predictions.csv"
    predictions.write_text(predictions.read_text().replace("new/4.png,cat", "new/4.png,dog"))
    found = compare([read_judged(path, "test") for path in (base, new)])
    assert found.images == 99
    assert "1 images have another label in another run and are left out, such as base/4.png" in found.notes


def test_other_images_or_classes_are_refused(tmp_path, imgrec):
    base = judged_run(tmp_path / "base", set())
    done = imgrec("compare", base, judged_run(tmp_path / "other", set(), range(200, 300)))
    assert done.code == 2
    assert "base and other: no image is among those that all were judged on" in done.err
    assert "imgrec evaluate -m RUN --data DIR" in done.err
    done = imgrec("compare", base, judged_run(tmp_path / "birds", set(), names=("cat", "bird")))
    assert done.code == 2
    assert "birds: its classes are not those of base: bird, dog only in one of them" in done.err


def test_what_cannot_be_compared_is_told(tmp_path, imgrec):
    base = judged_run(tmp_path / "base", set())
    for words, message in (
        ([base], "one run is named"),
        ([base, tmp_path], "neither a run nor an evaluation of one"),
        ([base, base, "--split", "validation"], "not judged on validation"),
        ([base, base, "--fail-if-worse", "acuracy"], "acuracy: no such figure"),
        ([base, base, "--fail-if-worse", "accuracy=much"], "expected FIGURE or FIGURE=DROP, such as accuracy=0.01"),
    ):
        done = imgrec("compare", *words)
        assert (done.code, message in done.err) == (2, True), done.err


def test_validation_images_are_said_to_have_chosen_the_model(tmp_path):
    base = judged_run(tmp_path / "base", {1}, split="validation")
    found = compare([read_judged(base, "validation"), read_judged(base / "evaluation" / "validation", "test")])
    assert found.caveat == "measured on the images that chose the model"
    assert found.names == ["base", "base/validation"]


def test_a_layer_put_in_is_told_as_such(tmp_path):
    from imgrec_cli.origin import config_differences

    first = judged_run(tmp_path / "a", set())
    longer = CONFIG.replace("[{type: flatten}", "[{type: batch_norm}, {type: flatten}")
    found = config_differences(Run(first), Run(judged_run(tmp_path / "b", set(), config=longer)))
    assert found == [("model.layers.0", "-", "[{type: batch_norm, activation: linear, momentum: 0.99}]")]
    with pytest.raises(InputError):
        read_judged(tmp_path, "test")


def test_figures_of_changed_copies_carry_the_same_caveat(tmp_path):
    runs = [judged_run(tmp_path / name, wrong, split="validation") for name, wrong in (("a", {1}), ("b", {2}))]
    for run in runs:
        (run / "evaluation" / "validation").rename(run / "evaluation" / "validation-tta")
    found = compare([read_judged(run, "validation-tta") for run in runs])
    assert found.caveat == "measured on the images that chose the model"


def test_seeds_that_were_judged_on_different_images_are_compared_on_those_that_all_have(tmp_path):
    for name in ("a", "b"):
        run = Run(tmp_path / name)
        run.folder.mkdir()
        run.update_record(status="finished", repeats={"kind": "seeds", "number": 2})
        for place, images in ((1, range(40)), (2, range(10, 50))):
            judged_run(run.part("seeds", place).folder, {11}, images)
    found = compare([read_judged(tmp_path / name, "test") for name in ("a", "b")])
    assert (found.images, found.trainings) == (30, [2, 2])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("path,class,probability\na.png,cat,0.9\n", 1),
        ("path,label,predicted\na.png,cat,cat\n", 1),
        ("path,label,predicted,score:cat,score:dog\na.png,cat,bird,0.5,0.5\n", 2),
        ("path,label,predicted,score:cat,score:dog\na.png,cat,cat,0.5,0.5\nb.png\n", 3),
    ],
)
def test_a_table_of_another_program_is_refused(tmp_path, text, line):
    file = tmp_path / "predictions.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"predictions\.csv:{line}: not as imgrec evaluate writes it"):
        read_judged(tmp_path, "test")
