"""/predict, /explain and the pages: the answers of `imgrec predict` in every form, clear words for what is wrong."""

import json
import zlib

import pytest
from PIL import Image

from imgrec_cli import Classifier

from .conftest import b64

pytestmark = pytest.mark.tf


@pytest.fixture
def expected(tiny_run, images):
    classifier = Classifier.load(tiny_run)
    return [classifier.predict(image) for image in images]


def same(answer, prediction):
    shares = {entry["label"]: entry["confidence"] for entry in answer["top"]}
    return answer["label"] == prediction.label and shares == pytest.approx(dict(prediction.ranking), abs=1e-6)


def test_a_form_of_several_images_is_answered_in_its_order(client, images, expected):
    files = [("file", (f"{index}.png", image)) for index, image in enumerate(images)]
    response = client.post("/predict", files=files)
    assert response.status_code == 200
    answers = response.json()["predictions"]
    assert [answer["path"] for answer in answers] == ["0.png", "1.png", "2.png"]
    assert all(same(answer, prediction) for answer, prediction in zip(answers, expected, strict=True))
    assert {"decision", "none_of_these", "abstained", "unfamiliar"} <= set(answers[0])


def test_the_bytes_of_an_image_and_base64_in_json_give_the_same(client, images, expected):
    raw = client.post("/predict", content=images[1], headers={"Content-Type": "image/png"}).json()
    encoded = client.post("/predict", json={"images": [b64(images[1])]}).json()
    assert same(raw["predictions"][0], expected[1])
    assert same(encoded["predictions"][0], expected[1])


def test_many_images_are_answered_each_with_its_own(client, images, expected):
    order = [0, 1, 2, 2, 1, 0, 0, 2] * 5
    answers = client.post("/predict", json={"images": [b64(images[n]) for n in order]}).json()["predictions"]
    assert all(same(answer, expected[n]) for answer, n in zip(answers, order, strict=True))


def test_top_limits_the_classes_of_an_answer(client, images):
    assert len(client.post("/predict?top=1", content=images[0]).json()["predictions"][0]["top"]) == 1
    refused = client.post("/predict?top=none", content=images[0])
    assert (refused.status_code, refused.json()) == (400, {"error": "top: a whole number from 1"})


def test_abstention_is_part_of_the_answer(tiny_run, images):
    from starlette.testclient import TestClient

    from imgrec_cli.serving.app import create_app
    from imgrec_cli.serving.service import Service

    service = Service(tiny_run, min_confidence=1.0)
    answer = TestClient(create_app(service)).post("/predict", content=images[0]).json()["predictions"][0]
    service.close()
    assert (answer["decision"], answer["abstained"]) == ("abstained", True)


def test_an_unreadable_image_among_others_is_named_and_the_rest_is_answered(client, images, expected):
    response = client.post("/predict", files=[("file", ("a.png", images[0])), ("file", ("b.png", b"nothing"))])
    assert response.status_code == 200
    good, bad = response.json()["predictions"]
    assert same(good, expected[0])
    assert bad == {"path": "b.png", "error": "not a JPEG, PNG, WebP, BMP, GIF or TIFF image, or its header is damaged"}


def test_where_no_image_can_be_read_the_request_fails_and_says_why(client):
    response = client.post("/predict", files={"file": ("b.png", b"")})
    assert response.status_code == 422
    assert response.json()["error"] == "b.png: the file is empty"


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(make_client):
    import io

    stream = io.BytesIO()
    Image.new("L", (300, 200)).save(stream, "PNG")
    response = make_client(pixels=50_000).post("/predict", content=stream.getvalue())
    assert response.status_code == 422
    assert response.json()["error"] == "image: 300×200: more than 0.05 million pixels"


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"{", "application/json", 400, "EOF while parsing"),
        (b'{"images": []}', "application/json", 400, "images: List should have at least 1 item"),
        (b'{"images": ["!"]}', "application/json", 422, "images.0: not base64"),
        (b'{"images": ["aa=="], "x": 1}', "application/json", 400, "x: Extra inputs are not permitted"),
        (b"[" * 100_000, "application/json", 400, "recursion limit exceeded"),
        (b'{"images": [' + b"1" * 100_000 + b"]}", "application/json", 400, "number out of range"),
        (b'{"images": [' + b"[]," * 300_000, "application/json", 400, "too many values of JSON"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "send a form with the field file"),
        (b"", "multipart/form-data", 400, "not a form of files: Missing boundary"),
        (b"nothing", "multipart/form-data; boundary=x", 400, "not a form of files"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "the form has no file"),
        (
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\na\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            400,
            "unknown field 'image'",
        ),
    ],
)
def test_a_body_of_the_wrong_form_is_told_what_is_wrong(client, body, kind, status, said):
    response = client.post("/predict", content=body, headers={"Content-Type": kind})
    assert response.status_code == status
    assert said in response.json()["error"]


def test_a_compressed_body_is_not_unpacked(client, images):
    response = client.post("/predict", content=zlib.compress(images[0]), headers={"Content-Encoding": "deflate"})
    assert response.status_code == 415


def test_an_explanation_tells_where_the_answer_comes_from(client, images, tiny_run, expected):
    from imgrec_cli.explanation import occlusion
    from imgrec_cli.imaging import load_pixels

    response = client.post("/explain", files={"file": ("a.png", images[1])})
    answer = response.json()
    classifier = Classifier.load(tiny_run)
    label = classifier.class_names.index(expected[1].label)
    wanted = occlusion(classifier, load_pixels(images[1], classifier.manifest.pixels), label)
    assert same(answer["prediction"], expected[1])
    assert answer["size"] == [16, 16]
    assert answer["map"] == pytest.approx(wanted, abs=2e-3)
    assert client.post("/explain", content=b"x").status_code == 422


def test_an_address_that_is_not_there_and_a_method_that_is_not_taken(client):
    assert (client.get("/nothing").status_code, client.get("/nothing").json()) == (404, {"error": "Not Found"})
    refused = client.get("/predict")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")


def test_the_pages_allow_only_their_own_script_and_style(client):
    for path in ("/", "/docs"):
        response = client.get(path)
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert "://" not in response.text.replace("http://www.w3.org", "")


def test_every_address_of_the_service_is_in_the_openapi_document(client):
    paths = client.get("/openapi.json").json()["paths"]
    routes = {route.path for route in client.app._app.routes} - {"/", "/docs", "/openapi.json"}
    assert set(paths) == routes


def test_nothing_is_written_to_a_disk(client, images, monkeypatch):
    import tempfile

    def refuse(*_, **__):
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    padded = images[0] + bytes(3_000_000)  # larger than what Starlette would keep in memory
    assert client.post("/predict", files={"file": ("a.png", padded)}).status_code == 200


def test_metrics_and_access_log_tell_of_a_request(client, images):
    client.post("/predict", files=[("file", ("a", images[0])), ("file", ("b", images[1]))])
    client.get("/nothing?token=secret")
    text = client.get("/metrics").text
    assert 'imgrec_requests_total{endpoint="predict",method="POST",status="200"} 1.0' in text
    assert "imgrec_waiting_images 0.0" in text
    assert (
        sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("imgrec_predictions_total")) == 2
    )
    predict, nothing, _ = (json.loads(json.dumps(access.as_dict())) for access in client.log)
    assert (predict["method"], predict["path"], predict["status"], predict["images"]) == ("POST", "/predict", 200, 2)
    assert (nothing["path"], nothing["status"]) == ("/nothing", 404)
