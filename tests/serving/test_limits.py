"""Who is let in, and what happens when too much is asked: refused at once, and everything is as before afterwards."""

import asyncio
import threading
import time

import pytest

from .conftest import b64

pytestmark = pytest.mark.tf


def test_without_the_token_only_pages_and_probes_are_answered(make_client, images):
    client = make_client(token="right")
    for path in ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready", "/v2/models/shapes/ready"):
        assert client.get(path).status_code == 200, path
    for path in ("/v2", "/v2/models/shapes", "/metrics"):
        assert client.get(path).status_code == 401, path
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}, {"Authorization": "right"}):
        refused = client.post("/predict", content=images[0], headers=given)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert client.post("/predict", content=images[0], headers={"Authorization": "Bearer right"}).status_code == 200
    assert client.get("/openapi.json").json()["paths"]["/predict"]["post"]["security"] == [{"token": []}]


def test_what_is_open_says_nothing_of_the_model(make_client):
    client = make_client(token="right", name="secret")
    for path in ("/openapi.json", "/v2/models/other/ready"):
        text = client.get(path).text
        for word in ("secret", "circle", "square"):
            assert word not in text, path
    known = {"Authorization": "Bearer right"}
    assert client.get("/v2/models/secret", headers=known).json()["parameters"]["class_names"][0] == "circle"
    open_to_all = make_client()
    assert "circle" in open_to_all.get("/openapi.json").text
    assert "there is shapes" in open_to_all.get("/v2/models/other/ready").text


def test_a_token_may_hold_any_letter(make_client):
    client = make_client(token="gehe\u00ef\u00e0")
    assert client.get("/v2", headers={"Authorization": "Bearer gehe\u00ef\u00e0".encode()}).status_code == 200
    assert client.get("/v2", headers={"Authorization": "Bearer gehe\u00ef".encode()}).status_code == 401


def test_a_body_that_is_too_large_is_refused_by_its_announcement_and_by_its_bytes(make_client):
    client = make_client(body_bytes=1000)
    announced = client.post("/predict", content=bytes(1001))
    assert (announced.status_code, announced.json()) == (413, {"error": "the body is larger than 1,000 bytes"})

    def pieces():
        for _ in range(11):
            yield bytes(100)

    assert client.post("/predict", content=pieces()).status_code == 413
    assert client.service._held_bytes == 0


def test_more_bodies_than_memory_may_hold_are_refused_for_now(make_client, images):
    client = make_client(body_bytes=1000)
    client.service.hold(client.service.limits.bodies_bytes)
    refused = client.post("/predict", content=images[0])
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    client.service.release(client.service.limits.bodies_bytes)
    assert client.post("/predict", content=images[0]).status_code == 200


def test_more_images_than_the_queue_could_ever_hold_are_too_large(make_client, images):
    client = make_client(queue_images=2)
    response = client.post("/predict", json={"images": [b64(images[0])] * 3})
    assert (response.status_code, response.json()) == (413, {"error": "3 images; at most 2 at once"})


def test_a_full_queue_answers_503_at_once_and_recovers(make_client, images):
    client = make_client(queue_images=1, workers=1, seconds=20)
    busy, release = threading.Event(), threading.Event()

    def hold_the_worker(_):
        busy.set()
        release.wait(20)

    async def ask() -> None:
        held = client.service.batcher.run(hold_the_worker)
        await asyncio.to_thread(busy.wait, 20)
        waiting = client.service.batcher.scored([images[0]])
        refused = await asyncio.to_thread(client.post, "/predict", content=images[0])
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json() == {"error": "too many images are waiting"}
        release.set()
        await held
        await asyncio.gather(*waiting)
        recovered = await asyncio.to_thread(client.post, "/predict", content=images[0])
        assert recovered.status_code == 200

    asyncio.run(ask())


def test_an_answer_that_takes_too_long_is_given_up(make_client, images):
    client = make_client(workers=1, seconds=0.2)
    release = threading.Event()

    async def ask() -> None:
        held = client.service.batcher.run(lambda _: release.wait(20))
        late = await asyncio.to_thread(client.post, "/predict", content=images[0])
        assert (late.status_code, late.json()) == (503, {"error": "no answer within 0.2 seconds"})
        release.set()
        await held

    asyncio.run(ask())
    assert client.post("/predict", content=images[0]).status_code == 200


def test_a_body_that_does_not_come_is_given_up(make_client):
    from imgrec_cli.serving.app import create_app

    app = create_app(make_client(seconds=0.2).service)
    sent = []

    async def never():
        await asyncio.sleep(30)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b"", "client": None}
    asyncio.run(app(scope, never, send))
    assert sent[0]["status"] == 408
    assert sent[1]["body"] == b'{"error":"the body was not there within 0.2 seconds"}'


def test_a_fault_of_ours_is_one_line_of_json_and_the_worker_lives(client, images, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("a fault")

    monkeypatch.setattr(client.service.batcher, "_pixels", broken)
    failed = client.post("/predict", content=images[0])
    assert (failed.status_code, failed.json()) == (500, {"error": "a fault of imgrec; its log says more"})
    assert "RuntimeError: a fault" in caplog.text
    monkeypatch.undo()
    assert client.service.batcher.alive
    assert client.post("/predict", content=images[0]).status_code == 200


def test_what_nobody_waits_for_any_more_is_not_worked_on(client, images):
    async def ask() -> None:
        blocked = threading.Event()
        held = [client.service.batcher.run(lambda _: blocked.wait(20)) for _ in range(2)]
        while client.service.batcher.waiting:
            await asyncio.sleep(0.01)
        worked = []
        given_up = client.service.batcher.run(lambda _: worked.append(1))
        given_up.cancel()
        blocked.set()
        await asyncio.gather(*held)
        await client.service.batcher.run(lambda _: time.sleep(0))
        assert not worked

    asyncio.run(ask())
