"""Does a second process halve a search, and is a trial lost when one is killed? Prints a table.

python benchmarks/search.py shared     one process, then two: 20 trials of one thread each
python benchmarks/search.py killed     two processes, one of them killed in the middle
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

TRIALS = 20
CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
SETTINGS = (  # trials of one cost: pruning, which could make them shorter, sets in after the second epoch of three
    "search={optimizer.learning_rate: {low: 1e-4, high: 1e-2, log: true}}",
    "runtime.threads=1",
    "train.epochs=3",
    "train.early_stopping=null",
    "train.precision=float32",
    "image.size=[80, 80]",
)


def begun(folder: Path) -> subprocess.Popen[bytes]:
    """A process of `imgrec tune` on the study in the folder."""
    command = [sys.executable, "-m", "imgrec_cli", "tune", str(CONFIG), "--quiet"]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    command += ["--trials", str(TRIALS), "--study", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def ended(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.wait() != 0:
            raise SystemExit(f"imgrec tune ended with {process.returncode}")


def over(folder: Path) -> int:
    """Trials that have a result so far."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("trials/*/run.json")]
    return sum(record["status"] in ("tried", "pruned", "finished") for record in records)


def trials(folder: Path) -> str:
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    return f"{counts} | {median(float(row['seconds']) for row in rows):.1f}"


def shared(folder: Path) -> None:
    seconds = []
    for count in (1, 2):
        place = folder / str(count)
        started = time.perf_counter()
        ended([begun(place) for _ in range(count)])
        seconds.append(time.perf_counter() - started)
        print(f"| {count} | {seconds[-1]:.1f} | {seconds[-1] / seconds[0]:.2f} | {trials(place)} |", flush=True)


def killed(folder: Path) -> None:
    started = time.perf_counter()
    one, other = begun(folder), begun(folder)
    while over(folder) < TRIALS // 2:
        time.sleep(0.2)
    time.sleep(1)  # in the middle of a trial
    other.kill()
    other.wait()
    at_the_kill = over(folder)
    ended([one])
    print(f"| 2, one killed after {at_the_kill} | {time.perf_counter() - started:.1f} | | {trials(folder)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["shared", "killed"])
    wanted = parser.parse_args().what
    print("| processes | seconds, to the judged winner | of one process | trials | median seconds of a trial |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        {"shared": shared, "killed": killed}[wanted](Path(scratch))
