"""The figures of every epoch as TensorBoard reads them, written while training goes on."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imgrec_cli.errors import MissingExtraError, install_command
from imgrec_cli.progress import EpochEnd, Event, Listener


def require_tensorboard() -> None:
    """Raise MissingExtraError where TensorBoard is not installed: TensorFlow writes its files through it."""
    if find_spec("tensorboard") is None:
        raise MissingExtraError(
            "--tensorboard needs tensorboard, which is not installed", install_command("tensorboard")
        )


def with_scalars(folder: Path, on_event: Listener) -> Listener:
    """A listener that hands every event on, and writes the figures of an epoch into `folder` by their own names.

    The step of a figure is its epoch. `require_tensorboard` says before training whether this can be done.
    """
    import tensorflow as tf

    writer: Any = tf.summary.create_file_writer(str(folder))

    def listen(event: Event) -> None:
        on_event(event)
        if isinstance(event, EpochEnd):
            with writer.as_default(step=event.epoch):
                for name, value in event.metrics.items():
                    tf.summary.scalar(name, value)
            writer.flush()

    return listen
