"""The peer of serving.py: LitServe with imgrec's own decoding and classifier, one process per core.

    python litserve_server.py BUNDLE PORT BATCH [fast]      (in the environment of the peer, with imgrec on PYTHONPATH)

`BATCH` 1 switches its batching off; above it waits up to 2 ms for a batch to fill. `fast` is its queue over ZeroMQ.
"""

import sys

import litserve
import numpy as np
from fastapi import Request

from imgrec_cli.classifier import Classifier
from imgrec_cli.imaging import load_pixels
from imgrec_cli.machine import available_cores


class Images(litserve.LitAPI):
    """A form with the field `file`, as imgrec serve reads it; the answer is the label and its probability."""

    def setup(self, device: str) -> None:
        self.classifier = Classifier.load(sys.argv[1], threads=1)

    def decode_request(self, request: Request) -> np.ndarray:
        return load_pixels(request["file"].file.read(), self.classifier.manifest.pixels)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        scores = self.classifier.scores(pixels if pixels.ndim == 4 else pixels[None])
        return scores if pixels.ndim == 4 else scores[0]

    def encode_response(self, scores: np.ndarray) -> dict[str, object]:
        best = int(scores.argmax())
        return {"label": self.classifier.class_names[best], "confidence": float(scores[best])}


if __name__ == "__main__":
    batch = int(sys.argv[3])
    api = Images(max_batch_size=batch, batch_timeout=0.002 if batch > 1 else 0.0)
    workers, fast = available_cores(), sys.argv[4:] == ["fast"]
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=workers, fast_queue=fast)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")
