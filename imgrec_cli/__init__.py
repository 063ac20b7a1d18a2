"""imgrec: from a folder of images to a tested, shipped image classifier."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgrec_cli.api import evaluate as evaluate
    from imgrec_cli.api import train as train
    from imgrec_cli.classifier import Classifier as Classifier
    from imgrec_cli.config import load_config as load_config

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "imgrec_cli.classifier",
    "evaluate": "imgrec_cli.api",
    "load_config": "imgrec_cli.config",
    "train": "imgrec_cli.api",
}
__all__ = ["Classifier", "__version__", "evaluate", "load_config", "train"]


# The parts are imported when they are first asked for: importing the package must cost a predict nothing.
def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
