"""Grad-CAM: which part of an image speaks for a class, from the gradient at the network's last map."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import BackboneModel, Config, load_config
from imgrec_cli.explanation import normalised
from imgrec_cli.machine import native_messages_hidden
from imgrec_cli.rundir import Run
from imgrec_cli.training.model import behind_backbone
from imgrec_cli.training.restored import restored


@dataclass(frozen=True)
class GradCam:
    """A network cut at its last map: `to_map` images uint8 [N, H, W, C] → [N, h, w, c], `to_logits` from there on."""

    to_map: keras.Model
    to_logits: keras.Model

    @classmethod
    def of(cls, config: Config, shipped: keras.Model) -> "GradCam | None":
        """Of the shipped Keras model; None where it has no map, or Keras runs on a backend other than TensorFlow."""
        if keras.backend.backend() != "tensorflow":
            return None
        if isinstance(config.model, BackboneModel):
            network = shipped.get_layer(config.model.name)
            place = max(index for index, layer in enumerate(network.layers) if len(layer.output.shape) == 4)
            inner = keras.Model(network.input, network.layers[place].output)
            last = inner(shipped.get_layer("scaling").output)
            x = entry = keras.Input(last.shape[1:])
            # pooling, what some normalise behind it, and the head; dropout does nothing outside of training
            for layer in [*network.layers[place + 1 :], *behind_backbone(shipped)]:
                x = layer(x)
            return cls(keras.Model(shipped.input, last), keras.Model(entry, x))
        maps = [layer.output for layer in shipped.layers[3:] if len(getattr(layer.output, "shape", ())) == 4]
        if not maps:
            return None
        return cls(keras.Model(shipped.input, maps[-1]), keras.Model(maps[-1], shipped.get_layer("logits").output))

    def maps(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Maps float32 [N, h, w], 0 to 1, of what speaks for the classes `labels` int64 [N] (Selvaraju et al. 2017).

        Channels are weighted by the mean of the gradient of the class's logit; what speaks against it is cut off.
        """
        import tensorflow as tf

        last = tf.convert_to_tensor(self.to_map(pixels, training=False))
        with tf.GradientTape() as tape:
            tape.watch(last)
            logits = self.to_logits(last, training=False)
            chosen = tf.gather(logits, labels, axis=1, batch_dims=1)
        weights = tf.reduce_mean(tape.gradient(chosen, last), axis=(1, 2), keepdims=True)
        values: Any = tf.reduce_sum(weights * last, axis=-1).numpy()
        return np.stack([normalised(value) for value in values])


def grad_cam_of_run(run: Run) -> GradCam | None:
    """Of a finished run: its best weights, rebuilt in float32 on this machine's CPU or GPU."""
    with native_messages_hidden():
        config = load_config(run.resolved_config_file)
        return GradCam.of(config, restored(config, len(run.record["data"]["class_names"]), run))
