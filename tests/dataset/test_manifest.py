"""Manifests: what they may say, and the line and the advice for what they may not."""

from pathlib import Path

import pytest

from imgrec_cli.config.images import Data
from imgrec_cli.dataset import plan, scan
from imgrec_cli.dataset.look import look_at
from imgrec_cli.dataset.manifest import read_manifest
from imgrec_cli.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b, c.png", "sub/d.png", "e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def refusal(folder: Path, text: str, name: str = "m.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_manifest(folder / name)
    return f"{caught.value.message} | {caught.value.hint}".replace(str(folder), "T")


CSV = 'path,label,split,group\na.png,cat,train,p1\n"b, c.png",dog,val,\nsub\\d.png,cat,TEST,p2\n'


def test_splits_and_groups(folder: Path) -> None:
    (folder / "m.csv").write_text(CSV)
    rows, warnings = read_manifest(folder / "m.csv")
    assert [(row.path, row.label, row.split, row.group) for row in rows] == [
        ("a.png", "cat", "train", "p1"),
        ("b, c.png", "dog", "validation", ""),
        ("sub/d.png", "cat", "test", "p2"),
    ]
    assert rows[2].file == str(folder / "sub" / "d.png")
    assert warnings == []


def test_jsonl_and_semicolons_say_the_same(folder: Path) -> None:
    (folder / "m.csv").write_text(CSV)
    (folder / "s.csv").write_text(
        "\ufeff" + "path;label;split;group\na.png;cat;train;p1\nb, c.png;dog;val;\nsub/d.png;cat;test;p2\n"
    )
    (folder / "m.jsonl").write_text(
        '{"path": "a.png", "label": "cat", "split": "train", "group": "p1"}\n\n'
        '{"path": "b, c.png", "label": "dog", "split": "val", "group": null}\n'
        '{"path": "sub/d.png", "label": "cat", "split": "test", "group": "p2"}\n'
    )
    expected = read_manifest(folder / "m.csv")
    assert read_manifest(folder / "s.csv") == expected
    assert read_manifest(folder / "m.jsonl") == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("filename,class\na.png,cat\n", "T/m.csv:2: no column path, only filename, class | rename filename to path"),
        ("path,category\na.png,cat\n", "T/m.csv:2: no column label, only path, category | rename category to label"),
        ("path,label,subset\na.png,cat,x\n", "T/m.csv:2: unknown column subset | rename it to split, or remove it"),
        (
            "path,label,split\na.png,cat,holdout\n",
            "T/m.csv:2: split is 'holdout' | write train, validation or test, or leave it empty to have the split cut",
        ),
        ("path,label\na.png,\n", "T/m.csv:2: label is empty | every line needs a path and a label"),
        ("path,label\na.png,cat\n./a.png,dog\n", "T/m.csv:3: ./a.png stands on line 2 already | keep one of the lines"),
        (
            "path,label\nx/a.png,cat\na.png,cat\n",
            "T/m.csv:2: 1 of 2 images are not there, such as x/a.png | paths begin at the manifest's folder, T: move "
            "it to where they fit",
        ),
        (
            "path,label\nb, c.png,dog\n",
            "T/m.csv:2: 3 cells, and the header has 2 | put a cell that holds a comma in quotes",
        ),
        ("path,label\n", "T/m.csv: no images in it | its lines are: path,label"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(folder: Path, text: str, told: str) -> None:
    assert refusal(folder, text) == told


def test_columns_without_a_meaning_are_told(folder: Path) -> None:
    (folder / "m.csv").write_text("path,label,width,author\na.png,cat,3,x\n")
    assert read_manifest(folder / "m.csv")[1] == [
        f"{folder / 'm.csv'}: columns without a meaning here ignored: width, author"
    ]


def test_beside_a_folder(folder: Path) -> None:
    for name in ("photos/cat/1.png", "photos/dog/2.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    (folder / "next.csv").write_text("path,label\na.png,cat\ne.png,dog\n")
    data = Data(folder=str(folder / "photos"), manifest=str(folder / "next.csv"))
    listing = scan(data)
    assert [(example.path, example.label) for example in listing.examples] == [
        ("a.png", 0),
        ("cat/1.png", 0),
        ("dog/2.png", 1),
        ("e.png", 1),
    ]
    (folder / "next.csv").write_text("path,label\nphotos/cat/1.png,cat\n")
    with pytest.raises(DataError, match=r"1.png is named twice: by .*photos and by .*next.csv"):
        scan(data)


def test_a_frozen_split_reads_back(root: Path, tmp_path: Path) -> None:
    from imgrec_cli.dataset.manifest import write_manifest

    sample = root / "data" / "fashion-mini"
    look = look_at(sample)
    for name in ("split.csv", "split.jsonl"):
        write_manifest(tmp_path / name, look.rows())
        data = Data(manifest=str(tmp_path / name))
        frozen = {example.file: example.split for example in plan(scan(data), data, seed=7)[0]}
        planned = Data(folder=str(sample))
        assert frozen == {example.file: example.split for example in plan(scan(planned), planned, seed=0)[0]}


def test_groups_of_a_manifest_stay_together(tmp_path: Path) -> None:
    lines = ["path,label,group"]
    for number in range(120):
        (tmp_path / f"{number}.png").touch()
        lines.append(f"{number}.png,{'cat' if number % 2 else 'dog'},p{number // 10}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    data = Data(manifest=str(tmp_path / "m.csv"))
    splits: dict[str, set[str]] = {}
    for example in plan(scan(data), data, 0)[0]:
        splits.setdefault(example.group, set()).add(example.split)
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}


def test_json_may_hold_any_letter_that_some_take_for_a_line_end(folder: Path) -> None:
    names = ("a\u2028b.png", "c\u0085d.png")
    for name in names:
        (folder / name).touch()
    lines = "".join(f'{{"path": "{name}", "label": "cat"}}\n' for name in names)
    (folder / "m.jsonl").write_text(lines, encoding="utf-8")
    assert [row.path for row in read_manifest(folder / "m.jsonl")[0]] == list(names)
