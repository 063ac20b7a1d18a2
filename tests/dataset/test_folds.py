"""Cross-validation by `data.split.fold`: every image judges once, and what belongs together stays together."""

from collections import Counter

import pytest

from imgrec_cli.config import Data, Image
from imgrec_cli.dataset import load_dataset
from imgrec_cli.dataset.load import plan
from imgrec_cli.dataset.scan import scan
from imgrec_cli.errors import DataError


def rounds(folder, of: int, **keys) -> list[dict[str, str]]:
    """Path → split of every round."""
    found = []
    for number in range(1, of + 1):
        split = {"validation": "15%", "fold": {"number": number, "of": of}}
        data = Data.model_validate({"folder": str(folder), "split": split, **keys})
        dataset = load_dataset(data, Image(size=(8, 8)), seed=0)
        found.append({example.path: example.split for example in dataset.examples})
    return found


def test_every_image_judges_exactly_once(make_image):
    for name in ("cat", "dog"):
        for number in range(13):
            make_image(f"shapes/{name}/{number}.png")
    folder = make_image("shapes/cat/twin.png", seed=5).parents[1]
    make_image("shapes/cat/other.png", seed=5)  # the same picture: on the same side in every round
    found = rounds(folder, 4)
    judged = Counter(path for one in found for path, split in one.items() if split == "test")
    assert judged == Counter({path: 1 for path in found[0]})
    assert len(found[0]) == 28
    assert all(one["cat/twin.png"] == one["cat/other.png"] for one in found)
    for one in found:
        counts = Counter((path.split("/")[0], split) for path, split in one.items())
        assert min(counts[name, split] for name in ("cat", "dog") for split in ("train", "validation", "test")) >= 1


def test_groups_stay_on_one_side(make_image):
    for name in ("cat", "dog"):
        for number in range(15):
            folder = make_image(f"shapes/{name}/p{number // 3}-{number}.png").parents[1]
    for one in rounds(folder, 3, group="/(p[0-9]+)-"):
        sides: dict[str, set[str]] = {}
        for path, split in one.items():
            sides.setdefault(path.split("/")[1].split("-")[0], set()).add("test" if split == "test" else "other")
        # patient 1 has cats and dogs, which stay together too
        assert all(len(found) == 1 for found in sides.values())


def planned(folder, **split):
    data = Data.model_validate({"folder": str(folder), "split": split})
    return plan(scan(data), data, 0)


def test_a_folder_with_test_images_is_not_divided_anew(tree):
    folder = tree(*(f"{split}/{name}/{n}.png" for split in ("train", "test") for name in "ab" for n in range(4)))
    with pytest.raises(DataError, match="test images of its own") as error:
        planned(folder, fold={"number": 1, "of": 2})
    assert error.value.hint == (
        "name the training images alone, such as data.folder=DIR/train; the test images then stay untouched"
    )


def test_a_class_of_one_image_cannot_be_divided(tree):
    folder = tree("a/1.png", *(f"b/{n}.png" for n in range(9)))
    with pytest.raises(DataError, match="all images of a are in part 1, which leaves nothing of it to train on"):
        planned(folder, fold={"number": 1, "of": 3})


def test_a_part_without_a_class_is_told(tree):
    folder = tree("a/1.png", "a/2.png", *(f"b/{n}.png" for n in range(9)))
    _, warnings = planned(folder, fold={"number": 3, "of": 3})
    assert "no a in part 3: that takes 3 images that differ of a class" in warnings


def test_a_seed_of_its_own_keeps_the_split(tree):
    folder = tree(*(f"{name}/{n}.png" for name in "ab" for n in range(20)))
    data = Data.model_validate({"folder": str(folder), "split": {"seed": 7}})
    plain = Data.model_validate({"folder": str(folder)})
    assert plan(scan(data), data, 1) == plan(scan(data), data, 2) == plan(scan(plain), plain, 7)
    assert plan(scan(plain), plain, 1) != plan(scan(plain), plain, 7)
