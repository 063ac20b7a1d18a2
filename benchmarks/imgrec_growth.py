"""Cost of one run on a folder with an empty cache: seconds of scan and pack, of one epoch, and peak memory."""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import contestant

from imgrec_cli import train
from imgrec_cli.config import load_config
from imgrec_cli.dataset import load_dataset
from imgrec_cli.progress import EpochEnd, Event, ignore


def peak_megabytes() -> float:
    """Largest resident memory of this process so far; the pages of the mapped pack that were touched count."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes on Linux


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.set)
    started = time.perf_counter()
    load_dataset(config.data, config.image, config.seed, ignore)
    measured = {"pack_seconds": time.perf_counter() - started, "pack_megabytes": peak_megabytes()}

    def report(event: Event) -> None:
        if isinstance(event, EpochEnd):
            seconds = event.metrics["seconds"]
            contestant.say(**measured, train_seconds=seconds, train_megabytes=peak_megabytes())

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
        train(config, runs=Path(runs), on_event=report)


if __name__ == "__main__":
    main()
