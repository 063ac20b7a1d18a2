"""How fast `imgrec serve` answers, beside a bare loop over the same images and beside LitServe with the same model.

    python benchmarks/serving.py MODEL --images DIR [--seconds 8] [--rounds 2] [--env DIR]

Contestants take turns; the load comes from a second process on the same machine (load.py), which costs all servers
alike. Then the latencies of `imgrec serve`: one request at a time, and requests at half the rate that it reached.
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
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import environment

HERE = Path(__file__).parent
CONNECTIONS = 16
WARM_UP_SECONDS = 1.5


def bare_loop(model: Path, images: list[bytes], seconds: float) -> float:
    """Images per second of decoding and running alone: a thread per core with an interpreter of its own."""
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
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def server(command: list[str], port: int, ready: str, **environ: str) -> Iterator[None]:
    """A server in a process of its own, from the moment that `ready` is answered with 200."""
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
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        # LitServe's workers outlive it, each at a tenth of a core: what is left would slow down all that comes after
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(port: int, images: Path, seconds: float, *options: str) -> dict[str, object]:
    """What load.py says after a warm-up."""
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
    subprocess.run([*words, "--seconds", str(WARM_UP_SECONDS)], check=True, capture_output=True)
    done = subprocess.run([*words, "--seconds", str(seconds), *options], check=True, capture_output=True, text=True)
    answer: dict[str, object] = json.loads(done.stdout)
    if set(answer["statuses"]) != {"200"} or answer["errors"]:  # type: ignore[call-overload]
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

    def imgrec(measure: Callable[[int], float]) -> float:
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "imgrec_cli",
            "serve",
            str(options.model),
            "--port",
            str(port),
            "--drain-seconds",
            "0",
        ]
        with server(command, port, "/v2/health/ready"):
            return measure(port)

    def litserve(batch: int, *queue: str) -> float:
        port = free_port()
        command = [python, str(HERE / "litserve_server.py"), str(options.model), str(port), str(batch), *queue]
        with server(command, port, "/health", PYTHONPATH=str(HERE.parent)):
            return throughput(port)

    def throughput(port: int) -> float:
        return float(str(ask(port, options.images, options.seconds, "--connections", str(CONNECTIONS))["per_second"]))

    contestants: dict[str, Callable[[], float]] = {
        "bare loop, decode and run": lambda: bare_loop(options.model, images, options.seconds),
        "imgrec serve": lambda: imgrec(throughput),
        "LitServe, no batching": lambda: litserve(1),
        "LitServe, its fast queue": lambda: litserve(1, "fast"),
        "LitServe, batches of 8": lambda: litserve(8),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, measure in contestants.items():
            speeds[name].append(measure())
    median = {name: statistics.median(values) for name, values in speeds.items()}
    ours = median["imgrec serve"]
    print(f"{environment.machine()}; {CONNECTIONS} connections, {options.rounds} rounds of {options.seconds:g} s")
    for name, values in speeds.items():
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(f"{name:<28} {median[name]:7.0f} images/s  ({spread})  imgrec serve ÷ this: {ours / median[name]:.2f}")

    def latencies(port: int) -> float:
        alone = ask(port, options.images, options.seconds / 2, "--connections", "1")["milliseconds"]
        print(f"one request at a time, ms: {alone}")
        for rate, *evenly in ((ours / 2, "--evenly"), (ours / 2,), (ours / 4,)):
            words = ("--connections", "64", "--rate", f"{rate:.0f}", *evenly)
            loaded = ask(port, options.images, options.seconds, *words)
            how = "evenly" if evenly else "at random times"
            print(f"{rate:.0f} requests/s {how}, ms: {loaded['milliseconds']}")
        return 0.0

    imgrec(latencies)


if __name__ == "__main__":
    main()
