"""TensorFlow's own fused kernels behind Keras's layers and optimizers: same formulas, a fraction of the passes.

Keras 3 spells an optimizer update and a batch normalisation as a dozen elementwise passes over memory; TensorFlow has
each as one kernel. All are subclasses that override one method, keep Keras's state in Keras's order, and stand aside
where a kernel does not apply. docs/fused-kernels.md says what to check when Keras or TensorFlow is upgraded.
"""

import keras
import tensorflow as tf

from imgrec_cli.training.fused.layers import (
    Activation,
    AddReLU,
    BatchNormalization,
    Conv2D,
    DepthwiseConv2D,
    zeros_of_same,
)
from imgrec_cli.training.fused.optimizers import SGD, Adam, AdamW, RMSprop

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "AddReLU",
    "BatchNormalization",
    "Conv2D",
    "DepthwiseConv2D",
    "RMSprop",
    "missing_kernels",
    "zeros_of_same",
]


def missing_kernels() -> list[str]:
    """What this module needs and this Keras or TensorFlow no longer has; empty where all is there."""
    kernels = (
        "DepthwiseConv2dNativeBackpropFilter",
        "FusedBatchNormV3",
        "ResourceApplyAdam",
        "ResourceApplyKerasMomentum",
        "ResourceApplyRMSProp",
    )
    missing = [f"tensorflow.raw_ops.{name}" for name in kernels if not hasattr(tf.raw_ops, name)]
    if not tf.test.is_built_with_xla():
        missing.append("XLA")
    if not hasattr(keras.optimizers.Optimizer, "_get_variable_index"):
        missing.append("keras.optimizers.Optimizer._get_variable_index")
    return missing
