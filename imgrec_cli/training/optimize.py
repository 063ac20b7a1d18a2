"""Optimizer section → Keras optimizer, with a fused update where the backend has one."""

from typing import Any, assert_never

import keras

from imgrec_cli.config import Adam, AdamW, Optimizer, RMSprop, Sgd
from imgrec_cli.training.runtime import fused_kernels


def optimizer(spec: Optimizer) -> keras.optimizers.Optimizer:
    """The Keras optimizer for one `optimizer` section."""
    kinds: Any = fused_kernels() or keras.optimizers
    match spec:
        case Adam():
            return kinds.Adam(spec.learning_rate, beta_1=spec.beta_1, beta_2=spec.beta_2)
        case AdamW():
            return kinds.AdamW(
                spec.learning_rate, weight_decay=spec.weight_decay, beta_1=spec.beta_1, beta_2=spec.beta_2
            )
        case Sgd():
            return kinds.SGD(spec.learning_rate, momentum=spec.momentum, nesterov=spec.nesterov)
        case RMSprop():
            return kinds.RMSprop(spec.learning_rate, rho=spec.rho, momentum=spec.momentum)
        case _:
            assert_never(spec)
