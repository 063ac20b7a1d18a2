"""The Open Inference Protocol: what its clients send and what they are given; the bytes are laid out here by hand."""

import json
import struct

import numpy as np
import pytest

from imgrec_cli import Classifier
from imgrec_cli.imaging import load_pixels

from .conftest import b64

pytestmark = pytest.mark.tf

INFER = "/v2/models/shapes/infer"


@pytest.fixture
def reference(tiny_run, images):
    """(classifier, pixels uint8 [3, 16, 16, 1], scores float32 [3, 3])"""
    classifier = Classifier.load(tiny_run)
    pixels = np.stack([load_pixels(image, classifier.manifest.pixels) for image in images])
    return classifier, pixels, classifier.scores(pixels)


def outputs(response):
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


def test_server_model_and_health(client):
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "classification"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/shapes", "/v2/models/shapes/versions/1"):
        assert client.get(path + "/ready").json() == {"name": "shapes", "ready": True}
        metadata = client.get(path).json()
        assert metadata["inputs"][1] == {"name": "pixels", "datatype": "UINT8", "shape": [-1, 16, 16, 1]}
        assert metadata["parameters"]["class_names"] == ["circle", "cross", "square"]
    unknown = client.get("/v2/models/other")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "no such model; there is shapes, version 1"})
    assert client.get("/v2/models/shapes/versions/2").status_code == 404


def test_while_draining_it_lives_answers_and_is_not_ready(client, images):
    client.service.draining = True
    assert client.get("/v2/health/ready").status_code == 503
    assert client.get("/v2/models/shapes/ready").status_code == 503
    assert client.get("/v2/health/live").status_code == 200
    answered = client.post("/predict", content=images[0])
    assert (answered.status_code, answered.headers["Connection"]) == (200, "close")


def test_encoded_images_in_json(client, images, reference):
    _, _, scores = reference
    body = {
        "id": "mine",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [3], "data": [b64(image) for image in images]}],
    }
    response = client.post(INFER, json=body)
    found = outputs(response)
    assert response.json()["id"] == "mine"
    assert response.json()["model_name"] == "shapes"
    assert np.reshape(found["scores"]["data"], (3, 3)) == pytest.approx(scores, abs=1e-6)
    names = ["circle", "cross", "square"]
    assert found["label"]["data"] == [names[row.argmax()] for row in scores]
    assert found["confidence"]["data"] == pytest.approx(scores.max(axis=1), abs=1e-6)
    assert found["decision"]["data"] == ["class"] * 3
    assert found["unfamiliar"]["datatype"] == "BOOL"


@pytest.mark.parametrize("nested", [True, False])
def test_pixels_in_json_nested_or_flat(client, reference, nested):
    _, pixels, scores = reference
    data = pixels.tolist() if nested else pixels.ravel().tolist()
    body = {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape), "data": data}]}
    found = outputs(client.post(INFER, json={**body, "outputs": [{"name": "scores"}]}))
    assert list(found) == ["scores"]
    assert np.reshape(found["scores"]["data"], (3, 3)) == pytest.approx(scores, abs=1e-6)


def binary_request(head, *tensors):
    encoded = json.dumps(head).encode()
    return b"".join([encoded, *tensors]), {"Inference-Header-Content-Length": str(len(encoded))}


def test_binary_pixels_in_and_binary_scores_out(client, reference):
    _, pixels, scores = reference
    head = {
        "inputs": [
            {
                "name": "pixels",
                "datatype": "UINT8",
                "shape": list(pixels.shape),
                "parameters": {"binary_data_size": pixels.nbytes},
            }
        ],
        "outputs": [
            {"name": "label", "parameters": {"binary_data": True}},
            {"name": "scores", "parameters": {"binary_data": True}},
            {"name": "confidence"},
        ],
    }
    body, headers = binary_request(head, pixels.tobytes())
    response = client.post(INFER, content=body, headers={**headers, "Content-Type": "application/octet-stream"})
    assert response.status_code == 200, response.text
    length = int(response.headers["Inference-Header-Content-Length"])
    label, share, confidence = json.loads(response.content[:length])["outputs"]
    rest = response.content[length:]
    names, rest = rest[: label["parameters"]["binary_data_size"]], rest[label["parameters"]["binary_data_size"] :]
    assert np.frombuffer(rest, "<f4").reshape(share["shape"]) == pytest.approx(scores, abs=1e-6)
    first = struct.unpack_from("<I", names)[0]
    assert names[4 : 4 + first].decode() in ("circle", "cross", "square")
    assert len(confidence["data"]) == 3


def test_binary_encoded_images_with_a_batch_axis(client, images, reference):
    _, _, scores = reference
    data = b"".join(struct.pack("<I", len(image)) + image for image in images)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [3, 1], "parameters": {"binary_data_size": len(data)}}
    body, headers = binary_request({"inputs": [tensor], "outputs": [{"name": "scores"}]}, data)
    found = outputs(client.post(INFER, content=body, headers=headers))
    assert np.reshape(found["scores"]["data"], (3, 3)) == pytest.approx(scores, abs=1e-6)


def test_the_classification_extension_ranks_the_classes(client, images, reference):
    _, _, scores = reference
    body = {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64(images[0])]}],
        "outputs": [{"name": "scores", "parameters": {"classification": 2}}],
    }
    found = outputs(client.post(INFER, json=body))["scores"]
    assert (found["datatype"], found["shape"]) == ("BYTES", [1, 2])
    value, index, name = found["data"][0].split(":")
    assert float(value) == pytest.approx(scores[0].max(), abs=1e-5)
    assert (int(index), name) == (scores[0].argmax(), ["circle", "cross", "square"][scores[0].argmax()])


def tensor(**changes):
    base = {"name": "pixels", "datatype": "UINT8", "shape": [1, 16, 16, 1], "data": [0] * 256}
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({}, 400, "inputs: Field required"),
        ({"inputs": []}, 400, "inputs: List should have at least 1 item"),
        ({"inputs": [tensor(shape=[-1])]}, 400, "inputs.0.shape.0"),
        ({"inputs": [tensor(data=None)]}, 422, "neither data nor parameters.binary_data_size"),
        ({"inputs": [tensor(data=None, parameters={"binary_data_size": 256})]}, 422, "256, 0 bytes are there"),
        ({"inputs": [tensor(name="x")]}, 400, "inputs.0.name: Input should be 'image' or 'pixels'"),
        ({"inputs": [tensor(), tensor()]}, 400, "inputs: List should have at most 1 item"),
        ({"inputs": [tensor(datatype="FP32")]}, 400, "inputs.0.datatype: Input should be 'BYTES' or 'UINT8'"),
        ({"inputs": [tensor(datatype="BYTES")]}, 422, "pixels: datatype BYTES, it takes UINT8"),
        ({"inputs": [tensor(shape=[1, 8, 32, 1])]}, 422, "shape [1, 8, 32, 1], it takes [N, 16, 16, 1]"),
        ({"inputs": [tensor(shape=[2, 16, 16, 1])]}, 422, "256 values for shape [2, 16, 16, 1]"),
        ({"inputs": [tensor(data=[256] * 256)]}, 422, "whole numbers from 0 to 255"),
        ({"inputs": [tensor(data=[0.5] * 256)]}, 422, "whole numbers from 0 to 255"),
        ({"inputs": [tensor(data=[True] * 256)]}, 422, "whole numbers from 0 to 255"),
        ({"inputs": [tensor(data=[[1], [2, 3]])]}, 422, "not one tensor of numbers"),
        ({"inputs": [tensor(data=[])]}, 422, "0 values for shape"),
        ({"inputs": [tensor(shape=[0, 16, 16, 1], data=[])]}, 422, "pixels: no images"),
        ({"inputs": [tensor(name="image", datatype="BYTES", shape=[1], data=["?"])]}, 422, "image: not base64"),
        ({"inputs": [tensor(name="image", datatype="BYTES", shape=[2], data=["aaaa"])]}, 422, "got 1 images"),
        ({"inputs": [tensor(name="image", datatype="BYTES", shape=[1], data=[7])]}, 422, "encoded images in base64"),
        ({"inputs": [tensor(name="image", datatype="BYTES", shape=[1], data=["aaaa"])]}, 422, "image 0: not a JPEG"),
        ({"inputs": [tensor()], "outputs": [{"name": "y"}]}, 400, "outputs.0.name: Input should be 'label'"),
        (
            {"inputs": [tensor()], "outputs": [{"name": "label", "parameters": {"classification": 1}}]},
            422,
            "classification belongs to scores",
        ),
    ],
)
def test_what_cannot_be_answered_is_told_why(client, request_, status, said):
    response = client.post(INFER, json=request_)
    assert response.status_code == status, response.text
    assert said in response.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "99999", "0"])
def test_a_wrong_length_of_the_json_part(client, length):
    response = client.post(INFER, content=b"{}", headers={"Inference-Header-Content-Length": length})
    assert response.status_code == 400


def test_the_platform_is_the_runtime_of_the_bundle():
    from dataclasses import replace
    from pathlib import Path

    from imgrec_cli.bundle import Manifest
    from imgrec_cli.serving.protocol import model_metadata

    manifest = Manifest.read(Path(__file__).parents[1] / "fixtures" / "bundle-1")
    platforms = [model_metadata("x", replace(manifest, target=t))["platform"] for t in ("litert-int8", "onnx")]
    assert platforms == ["litert", "onnx"]
