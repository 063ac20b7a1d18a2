"""The split as a pure function: shares, hashes, and what stays together."""

import hashlib
from collections import Counter

import pytest

from imgrec_cli.dataset.scan import Split
from imgrec_cli.dataset.split import assign, groups_of
from imgrec_cli.errors import DataError


def split(
    paths: list[str],
    labels: list[int] | None = None,
    identities: list[str] | None = None,
    groups: list[str] | None = None,
    seed: int = 0,
    validation: float | None = 0.15,
    test: float | None = 0.15,
) -> list[Split]:
    return assign(
        paths,
        labels or [0] * len(paths),
        identities or paths,
        groups=groups,
        seed=seed,
        validation=validation,
        test=test,
    )


def counts(splits: list[Split]) -> tuple[int, int, int]:
    number = Counter(splits)
    return number["train"], number["validation"], number["test"]


def names(number: int, folder: str = "cat") -> list[str]:
    return [f"{folder}/{index}.png" for index in range(number)]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (10, (6, 2, 2)),  # 1.5 is rounded up
        (20, (14, 3, 3)),
        (100, (70, 15, 15)),
        (1000, (700, 150, 150)),
    ],
)
def test_shares_of_a_class(images: int, expected: tuple[int, int, int]) -> None:
    assert counts(split(names(images))) == expected


def test_the_first_by_hash_are_test_and_the_next_validation() -> None:
    paths = names(40)
    ordered = sorted(paths, key=lambda path: hashlib.blake2b(f"7/{path}".encode(), digest_size=16).digest())
    found = dict(zip(paths, split(paths, seed=7), strict=True))
    assert [found[path] for path in ordered] == ["test"] * 6 + ["validation"] * 6 + ["train"] * 28


def test_each_class_is_divided_by_itself() -> None:
    paths = names(100, "cat") + names(20, "dog") + names(3, "owl")
    labels = [0] * 100 + [1] * 20 + [2] * 3
    splits = split(paths, labels)
    assert [counts(splits[start:end]) for start, end in ((0, 100), (100, 120), (120, 123))] == [
        (70, 15, 15),
        (14, 3, 3),
        (1, 1, 1),
    ]
    assert splits[:100] == split(paths[:100])


def test_order_of_the_listing_does_not_matter_and_the_seed_does() -> None:
    paths = names(60)
    forward = dict(zip(paths, split(paths), strict=True))
    backward = dict(zip(paths[::-1], split(paths[::-1]), strict=True))
    assert forward == backward
    assert forward != dict(zip(paths, split(paths, seed=1), strict=True))


def test_new_images_move_only_those_at_a_boundary() -> None:
    before, after = split(names(200)), split(names(210))
    assert sum(a != b for a, b in zip(before, after, strict=False)) <= 6


def test_what_is_not_wanted_is_not_taken() -> None:
    assert counts(split(names(100), test=None)) == (85, 15, 0)
    assert counts(split(names(100), validation=0.0, test=0.3)) == (70, 0, 30)
    assert counts(split(names(100), validation=None, test=None)) == (100, 0, 0)


@pytest.mark.parametrize("images", range(1, 12))
def test_training_keeps_an_image_whatever_the_shares(images: int) -> None:
    train, validation, test = counts(split(names(images), validation=0.9, test=0.9))
    assert train >= 1
    assert images < 3 or min(validation, test) >= 1


def test_equal_pictures_of_one_class_stay_together() -> None:
    paths = names(300)
    identities = [str(index // 3) for index in range(300)]
    splits = split(paths, identities=identities)
    assert all(len(set(splits[start : start + 3])) == 1 for start in range(0, 300, 3))
    assert counts(splits) == (210, 45, 45)


def test_equal_pictures_of_two_classes_stay_together_too() -> None:
    paths = names(20, "cat") + names(20, "dog")
    labels = [0] * 20 + [1] * 20
    for seed in range(10):
        for other in range(20, 40):
            identities = [*paths]
            identities[other] = paths[0]
            splits = split(paths, labels, identities=identities, seed=seed)
            assert splits[0] == splits[other]


def test_groups_stay_together_across_classes() -> None:
    paths = [
        f"{name}/p{patient:02}_{image}.png" for name in ("ill", "well") for patient in range(40) for image in range(5)
    ]
    labels = [0] * 200 + [1] * 200
    groups = groups_of(paths, r"/(p\d+)_")
    splits = split(paths, labels, groups=groups)
    assert all(len({s for s, g in zip(splits, groups, strict=True) if g == group}) == 1 for group in set(groups))
    assert counts(splits[:200]) == counts(splits[200:]) == (140, 30, 30)


def test_groups_that_share_a_picture_stay_together() -> None:
    groups = [f"g{index // 2}" for index in range(60)]
    identities = [str(index) for index in range(60)]
    identities[2] = identities[1]  # ties g0 and g1
    identities[4] = identities[3]  # and g2
    for seed in range(20):
        assert len(set(split(names(60), identities=identities, groups=groups, seed=seed)[:6])) == 1


def test_a_large_group_does_not_swamp_the_test_images() -> None:
    groups = ["large"] * 500 + [f"g{index}" for index in range(500)]
    for seed in range(10):
        splits = split(names(1000), groups=groups, seed=seed)
        assert counts(splits)[1:] == (150, 150)


def test_three_groups_give_one_to_each_side() -> None:
    groups = ["a"] * 50 + ["b"] * 30 + ["c"] * 20
    for seed in range(10):
        splits = split(names(100), groups=groups, seed=seed)
        assert {splits[0], splits[50], splits[80]} == {"train", "validation", "test"}


def test_one_group_is_all_training() -> None:
    assert counts(split(names(100), groups=["a"] * 100)) == (100, 0, 0)


def test_every_class_keeps_training_images_when_groups_span_classes() -> None:
    for seed in range(30):
        labels = [index % 7 for index in range(70)]
        groups = [f"g{index // 14}" for index in range(70)]
        splits = split(names(70), labels, groups=groups, seed=seed, validation=0.4, test=0.4)
        assert {label for label, side in zip(labels, splits, strict=True) if side == "train"} == set(range(7))


def test_a_group_expression_that_does_not_match() -> None:
    assert groups_of(["cat/p1_a.png", "cat/p2_b.png"], r"/(p\d)_") == ["p1", "p2"]
    with pytest.raises(DataError) as caught:
        groups_of(["cat/p1_a.png", "cat/scan.png", "dog/scan.png"], r"/(p\d)_")
    assert caught.value.message == (r"data.group: /(p\d)_ does not match 2 of 3 paths, such as cat/scan.png")
    with pytest.raises(DataError):  # a capture that took no part in the match
        groups_of(["cat/x.png"], r"(p\d)?x")
