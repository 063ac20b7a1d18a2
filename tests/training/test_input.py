"""The order of examples is a pure function of seed and epoch; no image is lost or doubled."""

import itertools

import numpy as np
import pytest

from imgrec_cli.training.input import InputClock, Source, balanced_order, order, padded_blocks

PIXELS = np.arange(23, dtype=np.uint8).reshape(23, 1, 1, 1)
ROWS = np.arange(2, 23)
LABELS = np.arange(21) % 4
SOURCE = Source(PIXELS, ROWS, LABELS, batch_size=4, seed=5)


def epoch_of(first_step=0, block=4, epoch=1):
    found = list(SOURCE.blocks(epoch, first_step, block))
    images = np.concatenate([images for images, _ in found])
    labels = np.concatenate([labels for _, labels in found])
    return images[..., 0, 0, 0], labels


def test_whole_batches_of_distinct_images_with_their_own_labels():
    images, labels = epoch_of()
    assert images.shape == (SOURCE.steps, 4) == (5, 4)
    assert len(set(images.ravel())) == 20
    np.testing.assert_array_equal(labels, (images.astype(int) - 2) % 4)


def test_every_epoch_has_its_own_order_and_repeats_exactly():
    np.testing.assert_array_equal(epoch_of()[0], epoch_of()[0])
    assert not np.array_equal(epoch_of(epoch=1)[0], epoch_of(epoch=2)[0])


@pytest.mark.parametrize("block", [1, 2, 7])
def test_an_epoch_goes_on_from_any_step_whatever_the_block(block):
    np.testing.assert_array_equal(epoch_of(first_step=3, block=block)[0], epoch_of()[0][3:])


def test_the_order_is_pinned():
    # a change here would break the exact resume of every run made before
    assert order(0, 1, 8).tolist() == [2, 0, 4, 1, 7, 5, 3, 6]
    assert sorted(order(7, 3, 1000).tolist()) == list(range(1000))


def test_evaluation_sees_every_image_once_in_order():
    found = [images[:count, 0, 0, 0] for images, count in padded_blocks(PIXELS, ROWS, 4)]
    assert np.concatenate(found).tolist() == list(range(2, 23))
    assert all(images.shape[0] == 4 for images, _ in padded_blocks(PIXELS, ROWS, 4))


def test_the_clock_counts_the_work_and_not_what_is_done_with_the_batches(monkeypatch):
    clock, seconds = InputClock(), itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(seconds)))
    for _ in SOURCE.blocks(1, 0, 2, clock):
        next(seconds)  # a step
    assert clock.seconds == 3  # blocks of two of the five batches


def test_balanced_sampling_gives_every_class_as_many_places():
    labels = np.array([0] * 90 + [3] * 9 + [1])
    first, second = balanced_order(0, 1, labels), balanced_order(0, 2, labels)
    assert len(first) == 100
    for found in (first, second):
        assert sorted(np.bincount(labels[found]).tolist()) == [0, 33, 33, 34]
        # of a class with enough images none comes twice, of the others all come equally often
        assert max(np.bincount(found, minlength=100)[:90]) == 1
        assert set(np.bincount(found, minlength=100)[90:99]) <= {3, 4}
    assert set(first[first < 90]) != set(second[second < 90])
    np.testing.assert_array_equal(balanced_order(0, 1, labels), first)
    # a change here would break the exact resume of every run made before
    assert balanced_order(0, 1, np.array([0, 0, 0, 0, 1])).tolist() == [0, 2, 4, 4, 4]


def test_a_balanced_source_goes_on_from_any_step():
    source = Source(PIXELS, ROWS, np.minimum(LABELS, 1), batch_size=4, seed=5, balanced=True)
    whole = np.concatenate([labels for _, labels in source.blocks(1, 0, 2)])
    assert 9 <= whole.sum() <= 11
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in source.blocks(1, 2, 3)]), whole[2:])


@pytest.mark.tf
def test_each_backend_is_given_the_same_batches():
    from imgrec_cli.training.input import _sequence

    images, labels = epoch_of(first_step=1)
    for_tensorflow = list(SOURCE.batches(1, 1, 3).as_numpy_iterator())
    sequence = _sequence(SOURCE, 1, 1, 3, None)
    for_others = [sequence[index] for index in range(len(sequence))]
    for found in (for_tensorflow, for_others):
        np.testing.assert_array_equal(np.stack([image[..., 0, 0, 0] for image, _ in found]), images)
        np.testing.assert_array_equal(np.stack([label for _, label in found]), labels)
