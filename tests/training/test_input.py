"""The order of examples is a pure function of seed and epoch; no image is lost or doubled."""

import itertools

import numpy as np
import pytest

from imgrec_cli.training.input import (
    WHOLE,
    Deal,
    InputClock,
    Source,
    balanced_order,
    order,
    order_in_parts,
    padded_blocks,
)

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


PLACES = np.random.default_rng(3).permutation(97)[:90]  # of 97 images, seven cannot be read


def in_parts(part=slice(None), epoch=1, first_step=0, balanced=False):
    """The rows of an epoch, int [steps, B], with four parts; 75 of the 90 rows train."""
    rows, inputs = np.arange(5, 80), np.arange(90)[:, None]
    source = Source(inputs, rows, rows % 3, 16, 5, balanced, part=part, deal=Deal(4, PLACES % 4))
    found = list(source.blocks(epoch, first_step, 2))
    labels = np.concatenate([labels for _, labels in found])
    images = np.concatenate([images for images, _ in found])[..., 0]
    np.testing.assert_array_equal(labels, images % 3)
    return images


def test_a_quarter_of_every_batch_is_of_each_part():
    rows = in_parts()
    assert rows.shape == (75 // 16, 16)
    np.testing.assert_array_equal(PLACES[rows] % 4, np.repeat([[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]], 4, 0))


def test_no_image_of_a_part_comes_more_often_than_its_slots_ask_for():
    rows, times = in_parts(), np.zeros(90, int)
    np.add.at(times, rows, 1)
    for part in range(4):
        training = times[5:80][PLACES[5:80] % 4 == part]
        slots = 4 * len(rows)
        assert set(training) <= {slots // len(training), -(-slots // len(training))}
    assert not times[:5].any()
    assert not times[80:].any()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_feed_what_one_feeds(processes):
    each = 16 // processes
    fed = [in_parts(slice(index * each, (index + 1) * each)) for index in range(processes)]
    np.testing.assert_array_equal(np.concatenate(fed, axis=1), in_parts())


def test_the_order_in_parts_goes_on_from_any_step_and_is_another_one_each_epoch():
    np.testing.assert_array_equal(in_parts(first_step=3), in_parts()[3:])
    assert not np.array_equal(in_parts(epoch=1), in_parts(epoch=2))
    same = order_in_parts(0, 1, np.repeat([0, 1], 50), 2, 20)  # parts of one size: each has its own order
    assert not np.array_equal(same[:, :10], same[:, 10:] - 50)


def test_the_order_in_parts_is_pinned():
    assert order_in_parts(0, 1, np.arange(8) % 2, 2, 4).tolist() == [[6, 4, 5, 7], [0, 2, 3, 1]]


def test_balanced_sampling_balances_each_part():
    rows = in_parts(balanced=True)
    for part in range(4):
        of_part = rows[:, part * 4 : part * 4 + 4].ravel()
        counts = np.bincount(of_part % 3)
        assert counts.max() - counts.min() <= 4  # what is left out of an epoch


@pytest.mark.parametrize("wanted", [np.arange(90), np.arange(20), np.flatnonzero(PLACES % 4 != 2), np.array([7])])
def test_evaluation_in_parts_sees_every_row_once_and_puts_it_back(wanted):
    batches, slots = Deal(4, PLACES % 4).batches(wanted, 8)
    np.testing.assert_array_equal(batches.ravel()[slots], wanted)
    assert len(set(slots.tolist())) == len(wanted)
    # free slots too: a process would have to decode what is not its own
    np.testing.assert_array_equal(PLACES[batches] % 4, np.broadcast_to([0, 0, 1, 1, 2, 2, 3, 3], batches.shape))


def test_evaluation_of_a_whole_pack_keeps_the_order_of_the_rows():
    batches, slots = WHOLE.batches(np.arange(3, 14), 4)
    assert batches.tolist() == [[3, 4, 5, 6], [7, 8, 9, 10], [11, 12, 13, 13]]
    assert slots.tolist() == list(range(11))
