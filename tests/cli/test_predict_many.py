"""imgrec predict on many images: into a file, in parts, going on after a stop, sorted into folders."""

import csv
import json
import shutil

import pytest

pytestmark = pytest.mark.tf


@pytest.fixture
def photos(tiny_config, tmp_path):
    """36 images in three folders, and a broken one."""
    folder = tmp_path / "photos"
    shutil.copytree(tiny_config.parent / "shapes", folder)
    (folder / "circle" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def rows(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_answers_go_into_a_file_and_a_finished_one_is_not_touched(imgrec, tiny_run, photos, tmp_path):
    out = tmp_path / "answers.csv"
    done = imgrec("predict", "-m", tiny_run, photos, "--out", out)
    assert (done.code, done.out) == (3, f"36 answered, 1 not read: {out}\n")
    assert [path.name for path in tmp_path.glob("answers*")] == ["answers.csv"]
    printed = imgrec("predict", "-m", tiny_run, photos, "--format", "csv")
    assert out.read_text(encoding="utf-8") == printed.out
    again = imgrec("predict", "-m", tiny_run, photos, "--out", out)
    assert again.code == 2
    assert "exists already" in again.err


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_an_interrupted_command_goes_on_behind_the_last_whole_answer(imgrec, tiny_run, photos, tmp_path, suffix):
    import imgrec_cli.answers

    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"answers{suffix}"
    imgrec("predict", "-m", tiny_run, photos, "--out", whole)
    count = 0

    def stop_in_the_middle(writer, answer, add=imgrec_cli.answers.Writer.add):
        nonlocal count
        count += 1
        if count == 20:
            raise KeyboardInterrupt
        add(writer, answer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imgrec_cli.answers.Writer, "add", stop_in_the_middle)
        assert imgrec("predict", "-m", tiny_run, photos, "--out", out).code == 130
    cut = out.read_bytes()
    assert whole.read_bytes().startswith(cut)
    out.write_bytes(cut[:-7])  # a process that was killed writes half a line
    other = imgrec("predict", "-m", tiny_run, photos, "--out", out, "--min-confidence", "0.9")
    assert other.code == 2
    assert "was begun with another model or other options" in other.err
    done = imgrec("predict", "-m", tiny_run, photos, "--out", out)
    assert "holds 18 answers: going on" in done.err
    assert out.read_bytes() == whole.read_bytes()


def test_parts_of_an_array_job_are_the_whole_without_overlap(imgrec, tiny_run, photos, tmp_path):
    found = []
    for part in (1, 2, 3):
        done = imgrec("predict", "-m", tiny_run, photos, "--shard", f"{part}/3", "--out", tmp_path / f"{part}.csv")
        assert done.code in (0, 3)
        found.append([row["path"] for row in rows(tmp_path / f"{part}.csv")])
    assert all(found)
    assert sorted(path for part in found for path in part) == sorted(str(path) for path in photos.glob("*/[0-9]*.png"))
    wrong = imgrec("predict", "-m", tiny_run, photos, "--shard", "0/3")
    assert wrong.code == 2
    assert "--shard 0/3: not a part" in wrong.err


@pytest.mark.parametrize("link", [False, True])
def test_images_are_sorted_by_class_and_the_originals_stay(imgrec, tiny_run, photos, tmp_path, link):
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    words = ["predict", "-m", tiny_run, photos, "--sort-into", tmp_path / "sorted", "--format", "jsonl"]
    answers = [json.loads(line) for line in imgrec(*words, *(["--link"] if link else [])).out.splitlines()]
    placed = sorted(path for path in (tmp_path / "sorted").rglob("*.png"))
    assert len(placed) == len(answers) == 36
    assert all(path.is_symlink() == link for path in placed)
    for answer in answers:
        original = before[type(tmp_path)(answer["path"])]
        assert original in [path.read_bytes() for path in (tmp_path / "sorted" / answer["label"]).iterdir()]
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == before
    imgrec(*words, *(["--link"] if link else []))  # a second time changes nothing
    assert sorted((tmp_path / "sorted").rglob("*.png")) == placed


def test_images_that_the_model_is_not_sure_of_have_a_folder_of_their_own(imgrec, tiny_run, photos, tmp_path):
    imgrec("predict", "-m", tiny_run, photos, "--min-confidence", "1", "--sort-into", tmp_path / "sorted")
    assert [path.name for path in (tmp_path / "sorted").iterdir()] == ["not sure"]


def test_a_large_folder_is_walked_without_being_held(tmp_path, monkeypatch):
    from imgrec_cli.dataset import walk

    for number in range(30):
        (tmp_path / f"{number}.png").touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "1.png").touch()
    (tmp_path / "deeper" / "loop").symlink_to(tmp_path)
    in_order = [str(tmp_path / f"{number}.png") for number in range(30)] + [str(tmp_path / "deeper" / "1.png")]
    assert list(walk.images_in_order(tmp_path)) == in_order
    monkeypatch.setattr(walk, "LARGEST_SORTED", 8)
    assert sorted(walk.images_in_order(tmp_path)) == sorted(in_order)
