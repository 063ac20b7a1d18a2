"""`imgrec train` with a line for each epoch: the validation accuracy, which is of the test set where that is named."""

import argparse
import tempfile
from pathlib import Path

import contestant

from imgrec_cli import train
from imgrec_cli.progress import EpochEnd, Event, Note


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()

    def report(event: Event) -> None:
        match event:
            case EpochEnd():
                contestant.say(epoch=event.epoch, accuracy=event.metrics["val/accuracy"])
            case Note():
                contestant.say(note=event.text)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
        train(arguments.config, arguments.set, runs=Path(runs), on_event=report)


if __name__ == "__main__":
    main()
