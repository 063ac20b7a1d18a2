"""Median wall time of commands in new processes, as a user waits for them: needs a finished run in ./runs.

    python benchmarks/startup.py [--times 15]

The first call of each command is not counted: it reads the disk. Compare ratios; a shared machine is noisy.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

IMAGE = next((Path(__file__).parents[1] / "data" / "fashion-mini" / "test" / "ankle_boot").glob("*.png"))
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "imgrec --help": ["-m", "imgrec_cli", "--help"],
    "imgrec predict IMAGE": ["-m", "imgrec_cli", "predict", str(IMAGE)],
    "imgrec predict IMAGE --format json": ["-m", "imgrec_cli", "predict", str(IMAGE), "--format", "json"],
}


def seconds(command: list[str]) -> float:
    """Wall time of one new Python process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the commands that a user waits for.")
    parser.add_argument("--times", type=int, default=15, help="new processes per command")
    times = parser.parse_args().times
    print(f"{'command':<36} {'median':>8} {'fastest':>8} {'slowest':>8}   seconds, {times} processes each")
    for name, command in COMMANDS.items():
        seconds(command)
        taken = [seconds(command) for _ in range(times)]
        print(f"{name:<36} {statistics.median(taken):8.3f} {min(taken):8.3f} {max(taken):8.3f}")


if __name__ == "__main__":
    main()
