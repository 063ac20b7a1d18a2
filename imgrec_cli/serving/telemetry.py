"""What an operator sees of a service: Prometheus metrics, and one record per request for the access log."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from imgrec_cli import __version__
from imgrec_cli.classifier import Prediction
from imgrec_cli.serving.batching import BATCH_IMAGES, Batch

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_METHODS = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"}


@dataclass(frozen=True, slots=True)
class Access:
    """One request answered. `endpoint` is the name of what answered, `images` the number of images in the body."""

    time: datetime
    client: str
    method: str
    path: str
    endpoint: str
    status: int
    milliseconds: float
    images: int

    def as_dict(self) -> dict[str, Any]:
        """For a line of JSON; nothing of the query, the headers or the body is in it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"time": self.time.astimezone(UTC).isoformat(timespec="milliseconds")}


class Metrics:
    """The counts of one service, in a registry of their own."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        Info("imgrec_model", "What is served.", registry=self.registry).info({"model": model, "imgrec": __version__})
        self._requests = Counter(
            "imgrec_requests", "Requests answered.", ["endpoint", "method", "status"], registry=self.registry
        )
        self._request_seconds = Histogram(
            "imgrec_request_seconds",
            "From the head of a request to the end of its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_images = Histogram(
            "imgrec_batch_images",
            "Images per batch.",
            buckets=range(1, BATCH_IMAGES + 1),
            registry=self.registry,
        )
        self._decode_seconds = Histogram(
            "imgrec_decode_seconds", "Decoding of one batch.", buckets=_SECONDS, registry=self.registry
        )
        self._network_seconds = Histogram(
            "imgrec_network_seconds", "The network on one batch.", buckets=_SECONDS, registry=self.registry
        )
        self._predictions = Counter(
            "imgrec_predictions", "Images answered.", ["label", "decision", "unfamiliar"], registry=self.registry
        )
        self.waiting = Gauge("imgrec_waiting_images", "Images that no worker has taken yet.", registry=self.registry)

    def count_batch(self, batch: Batch) -> None:
        self._batch_images.observe(batch.images)
        self._decode_seconds.observe(batch.decode_seconds)
        self._network_seconds.observe(batch.network_seconds)

    def count_prediction(self, answer: Prediction) -> None:
        self._predictions.labels(answer.label, answer.decision, str(answer.unfamiliar).lower()).inc()

    def count_request(self, access: Access) -> None:
        # the words of a client must not make new series without end
        method = access.method if access.method in _METHODS else "other"
        self._requests.labels(access.endpoint, method, access.status).inc()
        self._request_seconds.labels(access.endpoint).observe(access.milliseconds / 1000)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
