"""The Open Inference Protocol, version 2, as bytes: request → images, answers → response.

Source: https://github.com/kserve/open-inference-protocol (REST), with Triton's extensions `binary_tensor_data` and
`classification` (https://github.com/triton-inference-server/server/tree/main/docs/protocol).
"""

import base64
import binascii
import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, ValidationError

from imgrec_cli import __version__
from imgrec_cli.bundle import TARGETS, Manifest
from imgrec_cli.classifier import Prediction
from imgrec_cli.engines import Pixels

HEADER_LENGTH = "Inference-Header-Content-Length"
OutputName = Literal["label", "confidence", "scores", "decision", "unfamiliar"]
EXTENSIONS = ("binary_tensor_data", "classification")
VERSION = "1"  # of the one model that a service has
# Parsed, a value of JSON takes some 30 bytes and a list some 270, whatever they took in the body: 2,000,000 are 70 MB.
# Who sends pixels in bulk sends them binary.
MAX_JSON_VALUES = 2_000_000
_VALUES_PER_LIST = 8

Model = TypeVar("Model", bound=BaseModel)


class MalformedError(Exception):
    """A body that does not have the form it should have; the message says where."""


class UnusableError(Exception):
    """A body of the right form that this model cannot answer; the message says why."""


def _whole(value: object) -> object:
    """1.0 is an integer to JSON, and not to a strict pydantic."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Size = Annotated[NonNegativeInt, BeforeValidator(_whole)]


class InferInput(BaseModel):
    """One input tensor: `data` in JSON, or `parameters.binary_data_size` bytes after it."""

    model_config = ConfigDict(strict=True)

    name: Literal["image", "pixels"]
    shape: list[_Size] = Field(min_length=1, max_length=8)
    datatype: Literal["BYTES", "UINT8"]
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = None


class InferOutput(BaseModel):
    """An output that is asked for, and how."""

    model_config = ConfigDict(strict=True)

    name: OutputName
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """The JSON part of a request."""

    model_config = ConfigDict(strict=True)

    id: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[InferInput] = Field(min_length=1, max_length=1)
    outputs: list[InferOutput] = Field(default_factory=list, max_length=64)


@dataclass(frozen=True, slots=True)
class Infer:
    """A request understood: images as encoded bytes or as pixels, and the outputs that are asked for."""

    id: str
    images: Sequence[bytes] | Sequence[Pixels]
    outputs: list[InferOutput]


def parsed_json(model: type[Model], body: bytes) -> Model:
    """`body` as `model`. Raises MalformedError, with the place of the first fault; harmless for hostile JSON."""
    if body.count(b",") + _VALUES_PER_LIST * (body.count(b"[") + body.count(b"{")) > MAX_JSON_VALUES:
        raise MalformedError("too many values of JSON; send pixels as binary data, or as one flat list")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MalformedError(f"{place}: {first['msg']}" if place else first["msg"]) from error


def from_base64(text: str, place: str) -> bytes:
    """Raises UnusableError where `text` is not base64 of the standard alphabet."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableError(f"{place}: not base64") from error


def server_metadata() -> dict[str, Any]:
    return {"name": "imgrec", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, manifest: Manifest) -> dict[str, Any]:
    """The two inputs, of which a request names one, and the outputs; the order of `scores` stands in `parameters`."""
    classes = len(manifest.class_names)
    return {
        "name": name,
        "versions": [VERSION],
        "platform": TARGETS[manifest.target].runtime,
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, *manifest.pixels.size, manifest.pixels.channels]},
        ],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "confidence", "datatype": "FP32", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, classes]},
            {"name": "decision", "datatype": "BYTES", "shape": [-1]},
            {"name": "unfamiliar", "datatype": "BOOL", "shape": [-1]},
        ],
        "parameters": {"class_names": manifest.class_names},
    }


def parse_infer(body: bytes, json_length: int | None, manifest: Manifest) -> Infer:
    """The images of a request whose first `json_length` bytes (None: all) are JSON and the rest binary tensors.

    Raises MalformedError and UnusableError.
    """
    if json_length is not None and json_length > len(body):
        raise MalformedError(f"{HEADER_LENGTH} is {json_length}, the body has {len(body)} bytes")
    request = parsed_json(InferRequest, body[:json_length])
    (tensor,) = request.inputs
    binary = _binary_data(tensor, memoryview(body)[len(body) if json_length is None else json_length :])
    images = _encoded(tensor, binary) if tensor.name == "image" else list(_pixels(tensor, binary, manifest))
    if not images:
        raise UnusableError(f"{tensor.name}: no images")
    return Infer(request.id, images, _wanted(request, len(manifest.class_names)))


def _binary_data(tensor: InferInput, binary: memoryview) -> memoryview | None:
    """The bytes behind the JSON, which are the tensor's data; None where these are in the JSON."""
    size = tensor.parameters.get("binary_data_size")
    if size is None and tensor.data is None:
        raise UnusableError(f"{tensor.name}: neither data nor parameters.binary_data_size")
    if size is not None and tensor.data is not None:
        raise UnusableError(f"{tensor.name}: both data and parameters.binary_data_size")
    if len(binary) != (size or 0):
        raise UnusableError(f"{tensor.name}: binary_data_size {size!r}, {len(binary)} bytes are there")
    return None if size is None else binary


def _encoded(tensor: InferInput, binary: memoryview | None) -> list[bytes]:
    if tensor.datatype != "BYTES":
        raise UnusableError(f"image: datatype {tensor.datatype}, it takes BYTES")
    if binary is None:
        texts = [text for row in tensor.data or [] for text in (row if isinstance(row, list) else [row])]
        if not all(isinstance(text, str) for text in texts):
            raise UnusableError("image: data must be encoded images in base64")
        images = [from_base64(text, "image") for text in texts]
    else:
        images = list(_elements(binary))
    # [N], or [N, 1] as from clients that add a batch axis
    if math.prod(tensor.shape) != len(images) or len(tensor.shape) > 2 or tensor.shape[1:] not in ([], [1]):
        raise UnusableError(f"image: shape {tensor.shape}, got {len(images)} images; the shape is [N]")
    return images


def _elements(binary: memoryview) -> Iterator[bytes]:
    """BYTES elements: each its length as 4 bytes, little-endian, and then its bytes."""
    while len(binary):
        if len(binary) < 4 or len(binary) - 4 < (length := struct.unpack_from("<I", binary)[0]):
            raise UnusableError("image: an element is longer than the data")
        yield bytes(binary[4 : 4 + length])
        binary = binary[4 + length :]


def _pixels(tensor: InferInput, binary: memoryview | None, manifest: Manifest) -> Pixels:
    shape = (*manifest.pixels.size, manifest.pixels.channels)
    if tensor.datatype != "UINT8":
        raise UnusableError(f"pixels: datatype {tensor.datatype}, it takes UINT8")
    if tuple(tensor.shape[1:]) != shape:
        raise UnusableError(f"pixels: shape {tensor.shape}, it takes [N, {', '.join(map(str, shape))}]")
    if binary is not None:
        values = np.frombuffer(binary, np.uint8)
    else:
        try:
            listed = np.asarray(tensor.data)
        except ValueError as error:  # ragged, or nested too deeply
            raise UnusableError("pixels: data are not one tensor of numbers") from error
        if listed.size and (listed.dtype.kind not in "iu" or listed.min() < 0 or listed.max() > 255):
            raise UnusableError("pixels: data must be whole numbers from 0 to 255")
        values = listed.astype(np.uint8)
    if values.size != math.prod(tensor.shape):
        raise UnusableError(f"pixels: {values.size} values for shape {tensor.shape}")
    return values.reshape(tensor.shape)


def _wanted(request: InferRequest, classes: int) -> list[InferOutput]:
    """The outputs that are asked for, all of them where none is named, each saying whether it goes out as binary."""
    binary = request.parameters.get("binary_data_output", False)
    wanted = request.outputs or [InferOutput(name=name) for name in get_args(OutputName)]
    for output in wanted:
        count = output.parameters.get("classification")
        if count is not None and (output.name != "scores" or type(count) is not int or not 1 <= count <= classes):
            raise UnusableError(f"outputs: classification belongs to scores and is 1 to {classes}, got {count!r}")
        if not isinstance(output.parameters.setdefault("binary_data", binary), bool):
            raise UnusableError(f"outputs: {output.name}: binary_data is true or false")
    return wanted


def infer_response(infer: Infer, answers: Sequence[Prediction], name: str, class_names: list[str]) -> tuple[bytes, int]:
    """The body for a request, and the length of its JSON part (the whole body where nothing goes out as binary)."""
    outputs, binaries = [], []
    for wanted in infer.outputs:
        datatype, shape, values = _output(wanted, answers, class_names)
        output: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
        if wanted.parameters["binary_data"]:
            binary = _binary(datatype, values)
            output["parameters"] = {"binary_data_size": len(binary)}
            binaries.append(binary)
        else:
            output["data"] = values
        outputs.append(output)
    response = {"model_name": name, "model_version": VERSION, "outputs": outputs}
    if infer.id:
        response["id"] = infer.id
    head = json.dumps(response).encode()
    return b"".join([head, *binaries]), len(head)


def _binary(datatype: str, values: list[Any]) -> bytes:
    """Values as the extension lays them out: little-endian, each BYTES element behind its length in 4 bytes."""
    if datatype == "BYTES":
        encoded = [value.encode(errors="surrogateescape") for value in values]
        return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
    return np.asarray(values, {"FP32": "<f4", "BOOL": "?"}[datatype]).tobytes()


def _output(
    wanted: InferOutput, answers: Sequence[Prediction], class_names: list[str]
) -> tuple[str, list[int], list[Any]]:
    """Datatype, shape and flat values of one output for all images."""
    images = len(answers)
    match wanted.name, wanted.parameters.get("classification"):
        case "label", _:
            return "BYTES", [images], [answer.label for answer in answers]
        case "confidence", _:
            return "FP32", [images], [answer.confidence for answer in answers]
        case "decision", _:
            return "BYTES", [images], [answer.decision for answer in answers]
        case "unfamiliar", _:
            return "BOOL", [images], [answer.unfamiliar for answer in answers]
        case "scores", None:
            flat = [scores[label] for scores in (answer.scores for answer in answers) for label in class_names]
            return "FP32", [images, len(class_names)], flat
        case "scores", int(count):
            place = {label: index for index, label in enumerate(class_names)}
            best = [pair for answer in answers for pair in answer.ranking[:count]]
            return "BYTES", [images, count], [f"{share:f}:{place[label]}:{label}" for label, share in best]
    raise ValueError(wanted)
