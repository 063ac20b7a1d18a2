"""How fast `imgrec serve` answers, beside a bare loop over the same images and beside LitServe with the same model.

    python benchmarks/serving.py MODEL --images DIR [--seconds 8] [--rounds 2] [--env DIR]

Contestants take turns; the load comes from a second process on the same machine (load.py), which costs all servers
alike. CPU time is that of all processes of a contestant, and is known on Linux alone. Then the latencies of
`imgrec serve`: one request at a time, and requests at half the rate that it reached.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import environment

HERE = Path(__file__).parent
CONNECTIONS = 16
WARM_UP_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Speed:
    """Images per second, and milliseconds of CPU time per image: of the contestant, and of the load generator."""

    per_second: float
    cpu: float
    load_cpu: float = 0.0


def bare_loop(model: Path, images: list[bytes], seconds: float) -> Speed:
    """Decoding and running alone: a thread per core with an interpreter of its own."""
    import numpy as np

    from imgrec_cli.classifier import Classifier
    from imgrec_cli.imaging import load_pixels
    from imgrec_cli.machine import available_cores

    classifiers = [Classifier.load(model, threads=1) for _ in range(available_cores())]
    for classifier in classifiers:  # what LiteRT says at first is hushed for the whole process: not on two threads
        classifier.scores(load_pixels(images[0], classifier.manifest.pixels)[None])
    counts = [0] * len(classifiers)
    start = time.perf_counter() + WARM_UP_SECONDS

    def work(index: int) -> None:
        classifier, place = classifiers[index], index
        while (now := time.perf_counter()) < start + seconds:
            pixels: np.ndarray = load_pixels(images[place % len(images)], classifier.manifest.pixels)
            classifier.scores(pixels[None])
            place += 1
            counts[index] += now >= start

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(classifiers))]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, start - time.perf_counter()))
    computed = time.process_time()
    for thread in threads:
        thread.join()
    return Speed(sum(counts) / seconds, 1000 * (time.process_time() - computed) / sum(counts))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def cpu_seconds(session: int) -> float:
    """CPU time so far of the running processes of a session."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            fields = file.read_text().rpartition(")")[2].split()  # proc(5), from the field `state` on
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(command: list[str], port: int, ready: str, **environ: str) -> Iterator[int]:
    """A server in a session of its own, which is given, from the moment that `ready` is answered with 200."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environ},
        start_new_session=True,
    )
    try:
        for _ in range(600):
            try:
                with urlopen(f"http://127.0.0.1:{port}{ready}") as answer:
                    if answer.status == 200:
                        break
            except (URLError, OSError):
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        # LitServe's workers outlive it, each at a tenth of a core: what is left would slow down all that comes after
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(port: int, images: Path, seconds: float, *options: str) -> dict[str, Any]:
    """What load.py says."""
    words = [
        sys.executable,
        str(HERE / "load.py"),
        "127.0.0.1",
        str(port),
        "/predict",
        "--images",
        str(images),
        "--form",
    ]
    done = subprocess.run([*words, "--seconds", str(seconds), *options], check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    if set(answer["statuses"]) != {"200"} or answer["errors"]:
        print(f"not every request was answered: {answer}", file=sys.stderr)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure imgrec serve beside a bare loop and LitServe.")
    parser.add_argument("model", type=Path, help="a run or a bundle")
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEG images")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--env", type=Path, default=environment.default_folder("benchmark-serving"))
    options = parser.parse_args()
    python = str(environment.peers_python(options.env.absolute(), environment.serving_requirements()))
    files = sorted(options.images.rglob("*.jpg"))
    images = [file.read_bytes() for file in files[:: max(1, len(files) // 200)][:200]]

    def imgrec(port: int) -> AbstractContextManager[int]:
        words = ("serve", str(options.model), "--port", str(port), "--drain-seconds", "0")
        return server([sys.executable, "-m", "imgrec_cli", *words], port, "/v2/health/ready")

    def litserve(port: int, batch: int, *queue: str) -> AbstractContextManager[int]:
        command = [python, str(HERE / "litserve_server.py"), str(options.model), str(port), str(batch), *queue]
        return server(command, port, "/health", PYTHONPATH=str(HERE.parent))

    def asked(serve: Callable[[int], AbstractContextManager[int]]) -> Speed:
        port = free_port()
        with serve(port) as session:
            ask(port, options.images, WARM_UP_SECONDS)
            before = cpu_seconds(session)
            answer = ask(port, options.images, options.seconds, "--connections", str(CONNECTIONS))
            cpu = 1000 * (cpu_seconds(session) - before) / max(answer["statuses"].get("200", 0), 1)
        return Speed(answer["per_second"], cpu, answer["cpu_milliseconds"])

    contestants: dict[str, Callable[[], Speed]] = {
        "bare loop, decode and run": lambda: bare_loop(options.model, images, options.seconds),
        "imgrec serve": lambda: asked(imgrec),
        "LitServe, no batching": lambda: asked(lambda port: litserve(port, 1)),
        "LitServe, its fast queue": lambda: asked(lambda port: litserve(port, 1, "fast")),
        "LitServe, batches of 8": lambda: asked(lambda port: litserve(port, 8)),
    }
    speeds: dict[str, list[Speed]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, measure in contestants.items():
            speeds[name].append(measure())
    median = {name: statistics.median(speed.per_second for speed in found) for name, found in speeds.items()}
    ours = median["imgrec serve"]
    print(f"{environment.machine()}; {CONNECTIONS} connections, {options.rounds} rounds of {options.seconds:g} s")
    print("imgrec serve ÷ this; CPU time per image of this, and of the load generator")
    for name, found in speeds.items():
        rates = [speed.per_second for speed in found]
        cpu, load_cpu = (
            statistics.median(values) for values in zip(*((s.cpu, s.load_cpu) for s in found), strict=True)
        )
        print(
            f"{name:<28} {median[name]:7.0f} images/s  ({min(rates):.0f} to {max(rates):.0f})  "
            f"{ours / median[name]:.2f};  {cpu:.2f} ms, {load_cpu:.2f} ms"
        )

    port = free_port()
    with imgrec(port):
        ask(port, options.images, WARM_UP_SECONDS)
        alone = ask(port, options.images, options.seconds / 2, "--connections", "1")["milliseconds"]
        print(f"one request at a time, ms: {alone}")
        for rate, *evenly in ((ours / 2, "--evenly"), (ours / 2,), (ours / 4,)):
            words = ("--connections", "64", "--rate", f"{rate:.0f}", *evenly)
            loaded = ask(port, options.images, options.seconds, *words)
            how = "evenly" if evenly else "at random times"
            print(f"{rate:.0f} requests/s {how}, ms: {loaded['milliseconds']}")


if __name__ == "__main__":
    main()
