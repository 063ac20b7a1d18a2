"""The OpenAPI 3.1 document of a service: what programs are written and tested against."""

from typing import Any

from pydantic.json_schema import models_json_schema

from imgrec_cli import __version__
from imgrec_cli.serving import protocol
from imgrec_cli.serving.bodies import PredictBody
from imgrec_cli.serving.service import Service

_BINARY = {"type": "string", "format": "binary"}
_FAILURES = {
    400: "The body or a parameter has not the form that it should have; `error` says where.",
    401: "A bearer token is needed.",
    404: "There is no model of this name and version.",
    408: "The body was not there in time.",
    413: "The body is too large, or holds too many images.",
    415: "A content type that is not read here.",
    422: "The form is right, and it cannot be answered, such as an image that is none; `error` says why.",
    503: "Overloaded, or stopping. `Retry-After` says in how many seconds to try again.",
}


def document(service: Service, needs_token: bool) -> dict[str, Any]:
    """The document for `service`. Where it `needs_token`, with a security scheme and without a name of the model or of
    its classes: the document itself is open to all."""
    names = service.manifest.class_names
    label = {"type": "string"} if needs_token else {"enum": names}
    said = f" as one of {len(names)} classes: {', '.join(names[:20])}" + (", …" if len(names) > 20 else "")
    _, schemas = models_json_schema(
        [(PredictBody, "validation"), (protocol.InferRequest, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    components: dict[str, Any] = {"schemas": {**schemas["$defs"], **_responses_of(label)}}
    if needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "imgrec" if needs_token else f"imgrec: {service.name}",
            "version": __version__,
            "description": f"Classifies images{'' if needs_token else said}.",
        },
        "paths": _paths(service, needs_token),
        "components": components,
    }


def _paths(service: Service, needs_token: bool) -> dict[str, Any]:
    name = {"type": "string"} if needs_token else {"const": service.name}
    model = {"name": "name", "in": "path", "required": True, "schema": name}
    version = {"name": "version", "in": "path", "required": True, "schema": {"const": protocol.VERSION}}
    top = {
        "name": "top",
        "in": "query",
        "description": "Number of classes in each answer, most probable first.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999, "default": 5},
    }

    def get(summary: str, schema: str, *failures: int, parameters: Any = (), is_open: bool = False) -> dict[str, Any]:
        success = {"200": _json(summary, schema)}
        return _operation("get", summary, parameters, success, failures, needs_token and not is_open)

    def post(summary: str, schema: str, content: Any, description: str, parameters: Any, *more: int) -> dict[str, Any]:
        failures = (400, 408, 413, 415, 422, 503, *more)
        operation = _operation("post", summary, parameters, {"200": _json("Answered.", schema)}, failures, needs_token)
        operation["post"] |= {"description": description, "requestBody": {"required": True, "content": content}}
        return operation

    form = {
        "type": "object",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {"file": {"type": "array", "minItems": 1, "items": _BINARY}},
    }
    images = {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": {"$ref": "#/components/schemas/PredictBody"}},
        "application/octet-stream": {"schema": _BINARY},
        "image/jpeg": {"schema": _BINARY},
        "image/png": {"schema": _BINARY},
    }
    paths: dict[str, Any] = {
        "/predict": post(
            "Classify one image or several",
            "Predictions",
            images,
            "A form with the field `file`, repeatable; base64 in JSON; or the bytes of one image. An image that cannot "
            "be read is answered with `error` in its place; where none can be read the status is 422.",
            [top],
        ),
        "/explain": post(
            "Classify one image and show which parts of it decided",
            "Explanation",
            images,
            "One image, as for `/predict`. `map` are rows of numbers from 0 to 1 over the image as the model sees it "
            "(`size` is height and width, `fit` how it came to that): how much hiding the place takes from the answer.",
            [],
        ),
        "/v2": get("The server and its extensions", "ServerMetadata"),
        "/v2/health/live": get("Whether the process works", "Live", 503, is_open=True),
        "/v2/health/ready": get("Whether requests should come here", "Ready", 503, is_open=True),
        "/metrics": _operation(
            "get",
            "Metrics for Prometheus",
            (),
            {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
            (),
            needs_token,
        ),
    }
    for path, parameters in (
        ("/v2/models/{name}", [model]),
        ("/v2/models/{name}/versions/{version}", [model, version]),
    ):
        paths[path] = get("The model, its inputs and outputs", "ModelMetadata", 404, parameters=parameters)
        paths[path + "/ready"] = get(
            "Whether the model answers", "ModelReady", 404, 503, parameters=parameters, is_open=True
        )
        paths[path + "/infer"] = post(
            "Infer, by the Open Inference Protocol version 2",
            "InferResponse",
            {"application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}},
            "One input: `image`, BYTES [N], encoded images, in JSON as base64; or `pixels`, UINT8 [N, height, width, "
            "channels]. The extension for binary tensors is read and written, with the header "
            f"`{protocol.HEADER_LENGTH}`.",
            parameters,
            404,
        )
    return paths


def _operation(
    method: str, summary: str, parameters: Any, responses: dict[str, Any], failures: Any, secured: bool
) -> dict[str, Any]:
    for status in sorted({*failures, *((401,) if secured else ())}):
        responses[str(status)] = _json(_FAILURES[status], "Error")
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = list(parameters)
    if secured:
        operation["security"] = [{"token": []}]
    return {method: operation}


def _json(description: str, schema: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _responses_of(label: dict[str, Any]) -> dict[str, Any]:
    text, boolean = {"type": "string"}, {"type": "boolean"}
    texts = {"type": "array", "items": text}
    share = {"type": "number", "minimum": 0, "maximum": 1}
    sizes = {"type": "array", "items": {"type": "integer"}}
    tensors = {"type": "array", "items": _object({"name": text, "datatype": text, "shape": sizes})}
    ranked = {"type": "array", "items": _object({"label": label, "confidence": share})}
    answered = _object(
        {
            "path": text,
            "label": label,
            "confidence": share,
            "decision": {"enum": ["class", "none_of_these", "abstained"]},
            "none_of_these": boolean,
            "abstained": boolean,
            "unfamiliar": boolean,
            "unfamiliarity": {"type": ["number", "null"]},
            "top": ranked,
        },
        likely={"type": "array", "items": label},
    )
    unreadable = _object({"path": text, "error": text})
    predictions = {"type": "array", "items": {"anyOf": [answered, unreadable]}}
    outputs = {
        "type": "array",
        "items": _object({"name": text, "datatype": text, "shape": sizes}, data={"type": "array"}),
    }
    return {
        "Error": _object({}, error=text, live=boolean, ready=boolean, predictions=predictions),
        "Predictions": _object({"model": text, "predictions": predictions}),
        "Explanation": _object(
            {
                "model": text,
                "prediction": answered,
                "size": sizes,
                "fit": {"enum": ["stretch", "crop", "pad"]},
                "map": {"type": "array", "items": {"type": "array", "items": share}},
            }
        ),
        "Live": _object({"live": boolean}),
        "Ready": _object({"ready": boolean}),
        "ModelReady": _object({"name": text, "ready": boolean}),
        "ServerMetadata": _object({"name": text, "version": text, "extensions": texts}),
        "ModelMetadata": _object(
            {"name": text, "versions": texts, "platform": text, "inputs": tensors, "outputs": tensors},
            parameters=_object({"class_names": texts}),
        ),
        "InferResponse": _object({"model_name": text, "model_version": text, "outputs": outputs}, id=text),
    }
