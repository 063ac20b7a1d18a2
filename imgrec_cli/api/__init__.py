"""The verbs, by their names. Their files are called after what is done, so that no file hides a verb of its name."""

from imgrec_cli.api.judging import compare, evaluate, explain, report, stress
from imgrec_cli.api.searching import tune
from imgrec_cli.api.shipping import Exported, compress, export
from imgrec_cli.api.training import bench, label_issues, reproduce, train

__all__ = [
    "Exported",
    "bench",
    "compare",
    "compress",
    "evaluate",
    "explain",
    "export",
    "label_issues",
    "report",
    "reproduce",
    "stress",
    "train",
    "tune",
]
