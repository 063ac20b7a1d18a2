"""Kill training runs with SIGKILL at random moments, resume them, and compare the bits with runs that never stopped.

python tests/campaigns/kill.py --runs 50 --seed 0 [--fork] [--folder DIR] [--lanes 2]

Per precision, float32 and bfloat16: one run without a stop, then `--runs` runs that are killed. Every other run is
killed at a random CPU time between its start and its end, the rest at a random file operation (a file opened for
writing, renamed or removed below the run or the cache) or up to 20 ms after it, so that packing, half-written
checkpoints, the time between two renamings, export and evaluation are met as often as they write. A third of the runs
is killed once more while it resumes. Every run starts with an empty cache, so that it packs. Prints a line per run and
the table of docs/robustness.md.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRECISIONS = ("float32", "bfloat16")
CONFIG = """\
version: 1
data: {folder: FOLDER}
image: {size: [28, 28], color: gray}
augment:
  - {type: rotate, degrees: 10}
  - {type: shift, height: 0.07, width: 0.07}
  - {type: flip, axis: horizontal}
  - {type: brightness, range: [0.9, 1.1]}
model:
  type: layers
  layers:
    - {type: conv, filters: 8, kernel: 3, stride: 2, activation: relu}
    - {type: batch_norm}
    - {type: pool}
    - {type: flatten}
    - {type: dropout, rate: 0.3}
    - {type: dense, units: 32, activation: relu}
optimizer: {type: adamw, learning_rate: {type: cosine, peak: 3e-3, warmup: 10%, end: 1e-5}}
train: {batch_size: 4, epochs: 5, ema: 0.99, checkpoint_every: 20 steps, early_stopping: {patience: 4}}
"""
# Runs imgrec with a hook that sees every file operation; at the one that is asked for it kills its own process.
CHILD = """\
import os, signal, sys, threading, time

folders = os.environ["CAMPAIGN_FOLDERS"].split(os.pathsep)
fatal, delay = int(os.environ["CAMPAIGN_FATAL"]), float(os.environ["CAMPAIGN_DELAY"])
count = 0

def below(path):
    return isinstance(path, (str, bytes)) and os.path.abspath(os.fsdecode(path)).startswith(tuple(folders))

def watch(event, arguments):
    global count
    if event == "open":
        path, _, flags = arguments
        met = flags & (os.O_WRONLY | os.O_RDWR) and below(path)
    else:
        met = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") and below(arguments[0])
    if met:
        count += 1
        if count == fatal:
            if not delay:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Thread(target=lambda: (time.sleep(delay), os.kill(os.getpid(), signal.SIGKILL))).start()

sys.addaudithook(watch)
from imgrec_cli.cli import main
try:
    main()
finally:
    with open(os.environ["CAMPAIGN_COUNT"], "w") as stream:
        stream.write(str(count))
"""


@dataclass(frozen=True)
class Ended:
    """How one process ended, the CPU time that it took, and what it said."""

    code: int
    seconds: float
    out: str


@dataclass(frozen=True)
class Moment:
    """When a process is killed: after some seconds of CPU time, which a busy machine does not stretch, or `delay`
    seconds after its n-th file operation."""

    seconds: float | None = None
    operation: int = 0
    delay: float = 0.0

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"after {self.seconds:.2f} CPU s"
        return f"at file operation {self.operation} + {1000 * self.delay:.0f} ms"


def imgrec(folder: Path, *arguments: str, moment: Moment | None = None) -> Ended:
    """Run imgrec in a folder of its own, with its own cache, and kill it at a moment."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "IMGREC_CACHE": str(folder / "cache"),
        "CAMPAIGN_FOLDERS": os.pathsep.join([str(folder / "runs"), str(folder / "cache")]),
        "CAMPAIGN_FATAL": str(moment.operation if moment else 0),
        "CAMPAIGN_DELAY": str(moment.delay if moment else 0),
        "CAMPAIGN_COUNT": str(folder / "operations.txt"),
    }
    with (folder / "out.txt").open("w+") as said:
        process = start(folder, environment, said.fileno(), arguments, CHILD)
        while moment is not None and moment.seconds is not None and os.waitid(os.P_PID, process, LOOK) is None:
            if cpu_seconds(process) >= moment.seconds:
                os.kill(process, signal.SIGKILL)
                break
            time.sleep(0.005)
        _, status, usage = os.wait4(process, 0)
        said.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, said.read())


def start(folder: Path, environment: dict[str, str], out: int, arguments: tuple[str, ...], child: str) -> int:
    """Start imgrec in a new process and return its number: forked from this one where TensorFlow is loaded already and
    has not begun to work, else from nothing."""
    if "tensorflow" not in sys.modules or "pytest" in sys.modules:
        words = [sys.executable, "-c", child, *arguments]
        everything = {**os.environ, **environment}
        new = subprocess.Popen(words, cwd=folder, env=everything, stdout=out, stderr=subprocess.STDOUT)
        new.returncode = 0  # it is waited for by its number, not by this object
        return new.pid
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.environ.update(environment)
        os.chdir(folder)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["imgrec", *arguments]
        exec(compile(child, "campaign", "exec"), {"__name__": "campaign"})
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def load_packages() -> None:
    """Import all that a training imports; no operation runs, so that a fork has nothing to trip over."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", OPENBLAS_NUM_THREADS="1")
    sys.path.insert(0, str(ROOT))
    for name in ("tensorflow", "api", "cli", "dataset", "evaluation", "training.speed", "training.export"):
        import_module(name if name == "tensorflow" else f"imgrec_cli.{name}")
    assert len(os.listdir("/proc/self/task")) == 1, "a package has started a thread"  # noqa: PTH208


LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def cpu_seconds(process: int) -> float:
    """CPU time that a running process has taken, from Linux's /proc."""
    values = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def fingerprint(run: Path) -> dict[str, str]:
    """What has to be equal: digests of all state, of the best weights, of what is shipped, and every metric."""
    record = json.loads((run / "run.json").read_text())
    if record["status"] != "finished":
        return {"status": record["status"]}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]
    return {
        "state": record["sha256"]["last_state"],
        "best": record["sha256"]["best"],
        "metrics": json.dumps(metrics),
        "shipped": hashlib.sha256((run / "bundle" / "model.tflite").read_bytes()).hexdigest(),
        "predictions": hashlib.sha256((run / "evaluation" / "test" / "predictions.csv").read_bytes()).hexdigest(),
        "files": " ".join(sorted(p.relative_to(run).as_posix() for p in run.rglob("*"))),
    }


def stage(out: str, run: Path | None) -> str:
    """Where a killed run stood, by what it had said and left."""
    if run is None:
        return "before the run's folder"
    if "epoch 5/5" in out or "going on from the end" in out:
        return "after training: export, evaluation"
    if not (run / "examples.csv").exists():
        return "packing"
    if any((run / "checkpoints").glob(".*.tmp")) or (run / "checkpoints" / "next.npz").exists():
        return "while a checkpoint is written"
    return "training, validation"


def trial(number: int, precision: str, base: Path, config: str, end: Ended, operations: int, seed: int) -> dict:
    """One run, killed once or twice and resumed to its end."""
    chance = random.Random(f"{seed} {precision} {number}")
    folder = base / f"{precision}-{number:03d}"
    folder.mkdir()
    (folder / "campaign.yaml").write_text(config)
    words = ["train", "campaign.yaml", "--set", f"train.precision={precision}"]
    stages, moments, run = [], [], None
    kills = 2 if chance.random() < 1 / 3 else 1
    latest = 1.0  # of the time of the whole run; earlier where a run ended before its moment
    while True:
        moment = None
        if len(moments) < kills:
            if number % 2:
                moment = Moment(seconds=chance.uniform(0.2, latest) * end.seconds)
            else:
                delay = chance.choice([0.0, chance.uniform(0, 0.02)])
                moment = Moment(operation=chance.randint(1, max(1, round(latest * operations))), delay=delay)
        done = imgrec(folder, *words, moment=moment)
        found = list((folder / "runs").glob("*/run.json"))
        run = found[0].parent if found else None
        if done.code == 0 and not moments:  # it was not killed at all: once more, in earnest
            shutil.rmtree(folder / "runs")
            shutil.rmtree(folder / "cache")
            latest *= 0.8
            continue
        if done.code != -9:
            break
        moments.append(str(moment))
        stages.append(stage(done.out, run))
        if run is not None:
            words = ["train", "--resume", str(run.relative_to(folder))]
    result = {
        "run": f"{precision} {number}",
        "moments": moments,
        "stages": stages,
        "found": fingerprint(run) if run else {"status": "none"},
        "error": "" if done.code == 0 else f"ended with {done.code}: {done.out[-500:]}",
    }
    if done.code == 0:
        shutil.rmtree(folder)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50, help="runs per precision")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=2, help="runs at the same time")
    parser.add_argument("--fork", action="store_true", help="fork from a process that has TensorFlow loaded: faster")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    base = options.folder or Path(tempfile.mkdtemp(prefix="imgrec-kill-"))
    base.mkdir(parents=True, exist_ok=True)
    config = CONFIG.replace("FOLDER", str(ROOT / "data" / "fashion-mini"))
    if options.fork:
        load_packages()
    rows, failed = [], 0
    for precision in PRECISIONS:
        folder = base / f"{precision}-whole"
        folder.mkdir()
        (folder / "campaign.yaml").write_text(config)
        end = imgrec(folder, "train", "campaign.yaml", "--set", f"train.precision={precision}")
        assert end.code == 0, end.out
        operations = int((folder / "operations.txt").read_text())
        (run,) = (folder / "runs").iterdir()
        expected = fingerprint(run)
        print(
            f"{precision}: {end.seconds:.1f} CPU s, {operations} file operations, state {expected['state'][:16]}",
            flush=True,
        )

        same, met, twice = 0, Counter(), 0
        one = partial(
            trial, precision=precision, base=base, config=config, end=end, operations=operations, seed=options.seed
        )
        with ProcessPoolExecutor(options.lanes, get_context("fork")) as pool:
            for result in pool.map(one, range(options.runs)):
                differing = [key for key in expected if result["found"].get(key) != expected[key]]
                same += not differing
                failed += bool(differing)
                met.update(result["stages"])
                twice += len(result["stages"]) > 1
                verdict = "equal" if not differing else f"DIFFERS in {', '.join(differing)}"
                for key in differing:
                    verdict += f" ({expected[key]} ≠ {result['found'].get(key)})" if key == "files" else ""
                at = "; ".join(f"{m} ({s})" for m, s in zip(result["moments"], result["stages"], strict=True))
                print(f"{result['run']}: {verdict}; killed {at} {result['error']}".rstrip(), flush=True)
        rows.append((precision, options.runs, twice, same, met))
    stages = sorted({name for row in rows for name in row[-1]})
    print("\n| precision | runs killed | killed twice | " + " | ".join(stages) + " | equal to the bit |")
    print("| --- " * (4 + len(stages)) + "|")
    for precision, runs, twice, same, met in rows:
        cells = [precision, runs, twice, *(met[name] for name in stages), f"{same} of {runs}"]
        print("| " + " | ".join(map(str, cells)) + " |")
    if not failed:
        shutil.rmtree(base, ignore_errors=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
