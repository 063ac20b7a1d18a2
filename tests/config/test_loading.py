"""What a user is told about a config that cannot be used: the whole text, at the right place."""

from pathlib import Path

import pytest

from imgrec_cli.config import Adam, Config, Dense, load_config, parse_config
from imgrec_cli.errors import ConfigError

GOOD = "data: {folder: flowers}\nmodel: {type: layers, layers: [{type: flatten}]}\n"


def load(text: str, *overrides: str) -> Config:
    return parse_config(text, "f.yaml", Path("/base"), overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return caught.value.message.splitlines()


def test_six_mistakes_of_six_kinds_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "flowers.yaml"
    path.write_text(
        """\
version: 1
data:
  folder: flowers
  train: flowers/train
image: {size: ["32", 32], color: gray, imgsz: 32}
augment:
  - type: rotate
    degrees: 500
model:
  type: layers
  layers:
    - {type: convv, filters: 8}
    - {type: flatten}
train: {epochs: 3}
seed: 1
train:
  epochs: 5
"""
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.message.replace(str(path), "flowers.yaml").splitlines() == [
        "flowers.yaml:4:10: data.train: cannot stand beside data.folder; "
        "keep either folder, or train with validation and test",
        "flowers.yaml:5:16: image.size[0]: expected a whole number, got the text '32'; drop the quotes",
        "flowers.yaml:5:40: image.imgsz: unknown key; did you mean size?",
        "flowers.yaml:8:14: augment[0].degrees: must be at most 180, got 500",
        "flowers.yaml:12:14: model.layers[0].type: must be one of conv, pool, global_pool, flatten, dense, dropout, "
        "batch_norm, residual, got 'convv'; did you mean conv?",
        "flowers.yaml:16:1: train: is written twice; the first is on line 14, keep one of them",
    ]
    assert caught.value.exit_code == 2
    assert [file.name for file in tmp_path.iterdir()] == ["flowers.yaml"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        # unknown keys: misspelt, in the wrong section, a neighbour's word
        ("optimizer: {type: adam, lr: 3}", "3:25: optimizer.lr: unknown key; did you mean learning_rate?"),
        ("lr: 3", "3:1: lr: unknown key; write optimizer.learning_rate"),
        ("train: {learning_rate: 1}", "3:9: train.learning_rate: unknown key; its place is optimizer.learning_rate"),
        ("train: {batch: 32}", "3:9: train.batch: unknown key; did you mean batch_size?"),
        ("train: {patience: 3}", "3:9: train.patience: unknown key; write train.early_stopping.patience"),
        ("train: {batchSize: 3}", "3:9: train.batchSize: unknown key; did you mean batch_size?"),
        ("imgsz: 224", "3:1: imgsz: unknown key; write image.size"),
        ("epcohs: 3", "3:1: epcohs: unknown key; did you mean train.epochs?"),
        ("dataset: x", "3:1: dataset: unknown key; write data.folder"),
        ("rotation_range: 40", "3:1: rotation_range: unknown key; write {type: rotate, degrees: 40} in augment"),
        ("filters: 3", "3:1: filters: unknown key; its place is {type: conv} in model.layers"),
        (
            "rescale: 255",
            "3:1: rescale: unknown key; leave it out: pixels are scaled to 0..1 inside the model; "
            "for more see image.standardize",
        ),
        ("export: {zzz: 1}", "3:10: export.zzz: unknown key; known here: formats"),
        ("augment: [{type: rotate, degres: 3}]", "3:26: augment[0].degres: unknown key; did you mean degrees?"),
        # words
        ("image: {color: grayscale}", "3:16: image.color: must be rgb or gray, got 'grayscale'; did you mean gray?"),
        ("image: {color: RGB}", "3:16: image.color: must be rgb or gray, got 'RGB'; did you mean rgb?"),
        (
            "train: {early_stopping: {metric: val_acc}}",
            "3:34: train.early_stopping.metric: must be one of val/loss, val/accuracy, val/precision, val/recall, "
            "val/f1, got 'val_acc'; did you mean val/accuracy?",
        ),
        ("export: {formats: [tflite]}", "3:20: export.formats[0]: must be litert, got 'tflite'; did you mean litert?"),
        (
            "runtime: {device: cuda}",
            "3:19: runtime.device: expected a word such as auto, cpu, gpu, gpu:1, got the text 'cuda'; "
            "did you mean gpu?",
        ),
        (
            "augment: [{type: RandomFlip}]",
            "3:18: augment[0].type: must be one of rotate, shift, shear, zoom, crop, flip, fill, brightness, contrast, "
            "channel_shift, randaugment, erase, mixup, cutmix, got 'RandomFlip'; did you mean flip?",
        ),
        ("augment: [{flip: horizontal}]", "3:11: augment[0].type: is missing; did you mean type: flip?"),
        # wrong types
        ("train: {epochs: '32'}", "3:17: train.epochs: expected a whole number, got the text '32'; drop the quotes"),
        ("train: {epochs: 1e1}", "3:17: train.epochs: expected a whole number, got 10.0; write 10"),
        ("train: {epochs: true}", "3:17: train.epochs: expected a whole number, got true"),
        ("train:", "3:7: train: expected a section, got nothing"),
        ("optimizer: adam", "3:12: optimizer: expected a section such as {type: adam}, got the text 'adam'"),
        (
            "optimizer: {type: sgd, nesterov: yes}",
            "3:34: optimizer.nesterov: expected true or false, got the text 'yes'; write true",
        ),
        (
            "augment: {rotation_range: 4}",
            "3:10: augment: expected a list such as [{type: flip, axis: horizontal}], got a section",
        ),
        ("augment: [flip]", "3:11: augment[0]: expected a section such as {type: flip}, got the text 'flip'"),
        (
            "train: {early_stopping: true}",
            "3:25: train.early_stopping: expected a section such as {metric: val/loss, patience: 3}, got true",
        ),
        ("version: '1'", "3:10: version: must be 1, got '1'; drop the quotes"),
        # ranges and lengths
        ("seed: -1", "3:7: seed: must be at least 0, got -1"),
        ("optimizer: {type: adam, learning_rate: 0}", "3:40: optimizer.learning_rate: must be above 0, got 0"),
        (
            "optimizer: {type: adam, learning_rate: .nan}",
            "3:40: optimizer.learning_rate: expected a finite number, got nan",
        ),
        (
            "augment: [{type: rotate}]",
            "3:11: augment[0].degrees: is missing (largest angle to either side, in degrees)",
        ),
        ("image: {size: 224}", "3:15: image.size: expected a list such as [224, 224], got 224"),
        ("image: {size: [224]}", "3:15: image.size[1]: is missing; the list has only 1"),
        ("image: {size: [1, 2, 3]}", "3:15: image.size: must have at most 2 items, got 3"),
        ("export: {formats: []}", "3:19: export.formats: must not be empty"),
        # several kinds of value: one message, not one per kind
        ("image: {range: 5}", "3:16: image.range: expected auto or [low, high], got 5"),
        ("image: {range: [0, x]}", "3:20: image.range[1]: expected a number, got the text 'x'"),
        (
            "image: {range: [9, 1]}",
            "3:16: image.range: the first number must be smaller than the second; got [9.0, 1.0]",
        ),
        (
            "image: {standardize: on}",
            "3:22: image.standardize: expected off, auto or {mean: [...], deviation: [...]}, got the text 'on'",
        ),
        (
            "image: {standardize: {mean: [0, 0, 0], deviation: [1, 1, 0]}}",
            "3:58: image.standardize.deviation[2]: must be above 0, got 0",
        ),
        ("runtime: {threads: all}", "3:20: runtime.threads: expected auto or a whole number, got the text 'all'"),
        ("runtime: {threads: 0}", "3:20: runtime.threads: must be at least 1, got 0"),
    ],
)
def test_one_mistake_one_message(line: str, message: str) -> None:
    assert problems(GOOD + line) == [f"f.yaml:{message}"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("split: {test: 0.15}", "data.split.test: expected a percentage, got 0.15; write 15%"),
        ("split: {test: 15}", "data.split.test: expected a percentage, got 15; write 15%"),
        ("split: {test: 95%}", "data.split.test: must be at most 90%, got 95%"),
        (
            "group: '('",
            "data.group: not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        ("group: a", "data.group: needs exactly one capture, such as '^(\\w+)_'; got 0"),
        ("test: ''", "data.test: must not be empty"),
        ("test: 2024", "data.test: expected a text, got 2024; put ./ before it"),
    ],
)
def test_mistakes_in_data(data: str, message: str) -> None:
    (problem,) = problems(GOOD.replace("folder: flowers", f"train: flowers, {data}"))
    assert problem.split(": ", 1)[1] == message


def test_a_newer_format_asks_for_an_upgrade_and_nothing_else() -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + "version: 2\nfuture: 1\n")
    assert caught.value.message == "f.yaml:3:10: version: this config has format 2, this imgrec reads format 1"
    assert caught.value.hint == "upgrade imgrec: get its newer folder, then install from there as README says"


def test_files_that_are_no_config(tmp_path: Path) -> None:
    def told(name: str, content: bytes | None = None) -> tuple[str, str]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / name)
        return caught.value.message.replace(str(tmp_path), "T"), caught.value.hint.replace(str(tmp_path), "T")

    (tmp_path / "flowers.yaml").write_text(GOOD)
    (tmp_path / "photos").mkdir()
    assert told("flower.yaml") == (f"{Path('T/flower.yaml')}: no such file", f"did you mean {Path('T/flowers.yaml')}?")
    assert told("photos") == (
        f"{Path('T/photos')} is a folder, not a config",
        f"write one for its images, then train:\n  imgrec config init {Path('T/photos')}\n  imgrec train photos.yaml",
    )
    assert told("a.yaml", b"x: \xff") == (
        f"{Path('T/a.yaml')} cannot be read as text: it is not UTF-8 (byte 3 is 0xff)",
        "save it as UTF-8",
    )
    assert told("b.yaml", GOOD.encode("utf-16"))[0].endswith("it is UTF-16 (byte 0 is 0xff)")
    assert told("c.yaml", b"# nothing\n") == (
        f"{Path('T/c.yaml')} is empty",
        "write a starter config for your images: imgrec config init DATA_DIR",
    )
    assert told("d.yaml", b"- a\n")[0] == f"{Path('T/d.yaml')}:1:1: expected keys such as data: and model:, got a list"
    assert told("e.yaml", b" " * 200_001)[0] == f"{Path('T/e.yaml')} is larger than 200 kB, so it is no config"


def test_a_byte_order_mark_and_windows_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_config(path).train.epochs == 10


def test_paths_start_at_the_file_and_those_of_overrides_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    path = tmp_path / "configs" / "f.yaml"
    path.write_text(GOOD.replace("folder: flowers", "train: ../flowers, test: ~/test"))
    data = load_config(Path("../configs/f.yaml"), ["data.validation=more"]).data
    assert data.train == str(tmp_path / "flowers")
    assert data.test == str(tmp_path / "home" / "test")
    assert data.validation == str(tmp_path / "here" / "more")
    assert load_config(path, ["data={folder: x}"]).data.folder == str(tmp_path / "here" / "x")


def test_overrides_reach_sections_lists_and_layers() -> None:
    text = GOOD.replace("{type: flatten}", "{type: flatten}, {type: dense, units: 3}")
    text += "augment:\n  - {type: flip}\n  - {type: rotate, degrees: 5}\n"
    config = load(
        text,
        "augment.1.degrees=30",
        "model.layers.1.units=8",
        "train.early_stopping.patience=7",
        "optimizer.learning_rate=1e-4",
        "data.split.test=20%",
        "train.epochs=4",
        "train.epochs=5",
    )
    assert config.augment[1].model_dump() == {"type": "rotate", "degrees": 30.0}
    assert config.model.layers[1] == Dense(type="dense", units=8)
    assert config.train.early_stopping is not None
    assert config.train.early_stopping.patience == 7
    assert config.optimizer == Adam(type="adam", learning_rate=1e-4)
    assert config.data.split.test == 0.2
    assert config.train.epochs == 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.lr=3", "optimizer.lr: unknown key; did you mean learning_rate?"),
        ("train.epochs=many", "train.epochs: expected a whole number, got the text 'many'"),
        ("augment.0.degrees=500", "augment[0].degrees: must be at most 180, got 500"),
        ("augment.2.degrees=5", "augment.2.degrees: there is no item 2; augment has 1 item, counted from 0"),
        ("augment.first=5", "augment.first: augment is a list; name an item by its number, from 0"),
        ("augment[0].degrees=5", "write list items with dots, as in augment.0.degrees=5"),
        ("image.size.0=5", "image.size.0: the file has no list image.size; set the whole list"),
        ("data.folder.x=5", "data.folder.x: data.folder is no section, so it has no x"),
        ("train.epochs", "expected key=value, such as train.epochs=20"),
        ("train..epochs=5", "expected key=value, such as train.epochs=20"),
        ("train={", "value:1:2: not valid YAML: expected the node content, but found '<stream end>'"),
        (
            "data.train=x",
            "data.train: cannot stand beside data.folder; keep either folder, or train with validation and test",
        ),
    ],
)
def test_mistakes_in_overrides(setting: str, message: str) -> None:
    assert problems(GOOD + "augment: [{type: rotate, degrees: 4}]", setting) == [f"--set {setting}: {message}"]


def test_an_override_can_repair_the_file_and_comes_after_it_in_the_list_of_problems() -> None:
    assert load(GOOD + "train: {epochs: ten}", "train.epochs=10").train.epochs == 10
    assert problems(GOOD + "seed: x\ntrain: {epochs: ten}", "optimizer.lr=1", "train={epochs: 0}") == [
        "f.yaml:3:7: seed: expected a whole number, got the text 'x'",
        "--set optimizer.lr=1: optimizer.lr: unknown key; did you mean learning_rate?",
        "--set train={epochs: 0}: train.epochs: must be at least 1, got 0",
    ]


def test_a_class_is_known_in_either_spelling_of_its_letters() -> None:
    composed, decomposed = ("K\u00e4se", "S\u00e4ge"), ("Ka\u0308se", "Sa\u0308ge")
    config = parse_config(
        f"data: {{folder: x}}\nmodel: {{type: layers, layers: [{{type: flatten}}]}}\n"
        f"decision: {{thresholds: {{{decomposed[0]}: 0.3}}, target: {{recall.{decomposed[1]}: 0.9}}}}\n",
        "x.yaml",
        Path("/base"),
    )
    assert config.decision.thresholds == {composed[0]: 0.3}
    assert config.decision.targets == [("recall", composed[1], 0.9)]
