"""Engines: threads share a classifier, batches answer as single images do, and a caller may stop early."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from imgrec_cli.engines import Engines


class Counting:
    """An engine that notices two threads in it at once."""

    opened = 0

    def __init__(self):
        type(self).opened += 1
        self.busy = threading.Lock()

    def outputs(self, pixels):
        assert self.busy.acquire(blocking=False), "two threads in one engine"
        threading.Event().wait(0.001)
        self.busy.release()
        return pixels, None


def test_an_engine_serves_one_thread_at_a_time_and_no_more_are_opened_than_allowed():
    engines = Engines(Counting, 3)

    def work(number):
        with engines.one() as engine:
            return engine.outputs(number)[0]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(200))) == list(range(200))
    assert 1 <= Counting.opened <= 3


@pytest.mark.tf
def test_threads_share_a_classifier(tiny_run, tiny_config):
    from imgrec_cli import Classifier

    images = sorted((tiny_config.parent / "shapes").glob("*/*.png"))
    classifier = Classifier.load(tiny_run, threads=2)
    alone = [classifier.predict(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(classifier.predict, images * 5))
    for one, other in zip(alone * 5, together, strict=True):
        assert (one.source, one.label) == (other.source, other.label)
        assert one.scores == pytest.approx(other.scores, abs=1e-6)


@pytest.mark.tf
def test_many_images_come_in_order_and_answer_as_each_alone(tiny_run, tiny_config):
    from imgrec_cli import Classifier

    images = sorted((tiny_config.parent / "shapes").glob("*/*.png"))
    classifier = Classifier.load(tiny_run)
    many = list(classifier.predict_many((str(image), image) for image in images))
    assert [answer.source for answer in many] == [str(image) for image in images]
    for answer, image in zip(many, images, strict=True):
        assert answer.scores == pytest.approx(classifier.predict(image).scores, abs=1e-6)


@pytest.mark.tf
def test_images_are_read_as_they_are_needed_and_a_caller_may_stop(tiny_run, tiny_config):
    from imgrec_cli import Classifier

    image = next((tiny_config.parent / "shapes").glob("*/*.png"))
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield str(taken), image

    classifier = Classifier.load(tiny_run, threads=2)
    answers = classifier.predict_many(endless())
    assert [next(answers).source for _ in range(100)] == [str(number) for number in range(1, 101)]
    answers.close()
    assert taken < 200


@pytest.mark.tf
def test_eight_bit_pixels_are_what_a_microcontroller_takes(tiny_run):
    from imgrec_cli.training.micro import as_int8

    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(as_int8(pixels).ravel(), np.arange(-128, 128))
