"""Ten thousand requests that no service should have to see, and then ten minutes of load with the memory watched.

    python benchmarks/hostile.py MODEL --images DIR [--bad DIR] [--requests 10000] [--load-seconds 600]

Starts `imgrec serve MODEL` with its defaults, asks from threads of this process, and prints statuses by kind and the
resident memory. Exit code 1 where anything but 503 of the 5xx was answered, the service died, or a good request failed
at the end.
`--bad` is a folder of files that are sent as images, such as broken and hostile ones. Linux: it reads /proc.
"""

import argparse
import io
import json
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

THREADS = 8
SLOW_THREADS = 40
MIB = 1024 * 1024


class Target:
    """The service, and one good image of which the answer is known."""

    def __init__(self, port: int, good: bytes, bad: list[bytes], name: str) -> None:
        self.port, self.good, self.bad, self.name = port, good, bad, name

    def send(self, pieces: list[bytes], pause: float = 0.0, timeout: float = 60.0) -> str:
        """The status of the first answer to `pieces`, or `closed`, `reset`, `silent`."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(pause)
                except OSError:  # it stopped listening: what it said may still be there
                    pass
                received = connection.recv(65536)
        except TimeoutError:
            return "silent"
        except OSError:
            return "reset"
        return received.split(b" ", 2)[1].decode() if received.startswith(b"HTTP/1.1 ") else "closed"

    def post(self, path: str, body: bytes, kind: str = "image/jpeg", *headers: str) -> str:
        head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
        return self.send(["\r\n".join([*head, "Connection: close", "\r\n"]).encode("latin-1") + body])

    @property
    def infer(self) -> str:
        return f"/v2/models/{self.name}/infer"


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def random_bytes(target: Target, dice: random.Random) -> str:
    return target.post("/predict", dice.randbytes(dice.randrange(5000)))


def damaged_image(target: Target, dice: random.Random) -> str:
    image = bytearray(target.good)
    for _ in range(dice.randrange(1, 30)):
        image[dice.randrange(len(image))] = dice.randrange(256)
    return target.post("/predict", bytes(image[: dice.randrange(len(image))] if dice.random() < 0.5 else image))


def bad_file(target: Target, dice: random.Random) -> str:
    return target.post("/predict", dice.choice(target.bad or [b"GIF89a"]))


def bomb(target: Target, dice: random.Random) -> str:
    side = dice.choice([7000, 14_000, 65_536, 2**31 - 1])
    return target.post("/predict", png(side, side, bytes(100_000)), "image/png")


def broken_json(target: Target, dice: random.Random) -> str:
    body = dice.choice(
        [
            b"[" * dice.randrange(1, 200_000),
            b'{"images":' * 5000,
            b'{"images": [' + b"9" * dice.randrange(1, 100_000) + b"]}",
            b'{"images": [' + b"[]," * dice.randrange(1, 900_000) + b"[]]}",
            b'{"images": ["' + b"A" * dice.randrange(1, 4 * MIB) + b'"]}',
            b'{"images": [null, 1, {}, "\\ud800"]}',
            b'{"images": ["' + b"\xff" * 100 + b'"]}',
            b'{"inputs": [{"name": "pixels", "shape": [99999999999999999999], "datatype": "UINT8", "data": [1e999]}]}',
            b'{"inputs": [{"name": "pixels", "shape": [1, 1], "datatype": "UINT8", "data": '
            + b"[" * 150
            + b"]" * 150
            + b"}]}",
            b'{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}]}',
        ]
    )
    return target.post(dice.choice(["/predict", "/explain", target.infer]), body, "application/json")


def broken_binary(target: Target, dice: random.Random) -> str:
    size = dice.choice([-1, 0, 3, 100, 2**40])
    head = json.dumps(
        {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}]}
    ).encode()
    length = dice.choice([len(head), len(head) + 1, 0, 10**11, "x", "-5"])
    tail = dice.choice([b"", struct.pack("<I", 2**32 - 1), struct.pack("<I", 96) + dice.randbytes(96)])
    return target.post(
        target.infer, head + tail, "application/octet-stream", f"Inference-Header-Content-Length: {length}"
    )


def broken_form(target: Target, dice: random.Random) -> str:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = dice.choice(
        [
            part + b"a\r\n--x--\r\n",
            (part + b"\r\n") * dice.randrange(1, 2000),
            part + b"\r\n-" * dice.randrange(1, 200_000),
            part + b"\r" * dice.randrange(1, 500_000),
            b"--x\r\n" + b"A: " + b"b" * dice.randrange(1, 100_000) + b"\r\n\r\n",
            b'--x\r\nContent-Disposition: form-data; name="' + b"n" * 50_000 + b'"\r\n\r\nvalue\r\n--x--\r\n',
            b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--\r\n",
            dice.randbytes(1000),
        ]
    )
    kind = dice.choice(
        ["multipart/form-data; boundary=x"] * 5 + ["multipart/form-data", "multipart/form-data; boundary=" + "y" * 300]
    )
    return target.post("/predict", body, kind)


def broken_http(target: Target, dice: random.Random) -> str:
    return target.send(
        [
            dice.choice(
                [
                    dice.randbytes(200) + b"\r\n\r\n",
                    b"GET / HTTP/9.9\r\n\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
                    b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                    b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                    b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n\r\n",
                    b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n",
                    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nHost: x\r\n\r\n",
                    b"GET /%00%ff%c0%ae/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"TRACE /predict HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"GET /v2/models/" + dice.randbytes(20).hex().encode() + b"/ready HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"GET /predict?top=" + b"9" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"POST /predict HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\nHost: x\r\n\r\nabc",
                    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50,
                ]
            )
        ],
        timeout=20,
    )


def huge(target: Target, dice: random.Random) -> str:
    if dice.random() < 0.5:
        return target.send([b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", bytes(MIB)])
    chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
    return target.send([b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk] * 40])


def early_end(target: Target, dice: random.Random) -> str:
    with socket.create_connection(("127.0.0.1", target.port), timeout=20) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + dice.randbytes(500))
    return "left"


def slow(target: Target, dice: random.Random) -> str:
    head = dice.choice(
        [
            b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n",
            b"\r\n",
        ]
    )
    return target.send([head, *[dice.choice([b"a", b"\r\n"])] * 45], pause=1.0)


def good(target: Target, dice: random.Random) -> str:
    return target.post("/predict", target.good)


QUICK: list[tuple[Callable[[Target, random.Random], str], int]] = [
    *(
        (kind, 12)
        for kind in (random_bytes, damaged_image, bad_file, broken_json, broken_binary, broken_form, broken_http)
    ),
    (early_end, 8),
    (good, 6),
    (bomb, 1),
    (huge, 1),
]


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask a service what it should not have to hear.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--bad", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--load-seconds", type=float, default=600)
    options = parser.parse_args()
    image = next(iter(sorted(options.images.rglob("*.jpg"))))
    bad = [file.read_bytes() for file in sorted(options.bad.rglob("*")) if file.is_file()] if options.bad else []
    command = [sys.executable, "-m", "imgrec_cli", "serve", str(options.model), "--port", "0", "--name", "m", "--quiet"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = server.stderr or io.StringIO()
    errors: list[str] = []
    port = int(re.findall(r":(\d+) ", said.readline())[0])
    threading.Thread(target=lambda: errors.extend(said), daemon=True).start()
    target = Target(port, image.read_bytes(), bad, "m")
    good(target, random.Random())
    print(f"resident at the start: {resident_mib(server.pid):.0f} MiB")

    found: dict[str, Counter[str]] = defaultdict(Counter)
    lock = threading.Lock()

    def ask(kind: Callable[[Target, random.Random], str], dice: random.Random) -> None:
        status = kind(target, dice)
        with lock:
            found[kind.__name__][status] += 1

    def quick(seed: int) -> None:
        dice = random.Random(seed)
        kinds, weights = zip(*QUICK, strict=True)
        for kind in dice.choices(kinds, weights, k=(options.requests - 4 * SLOW_THREADS) // THREADS):
            ask(kind, dice)

    def slowly(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(4):
            ask(slow, dice)

    threads = [threading.Thread(target=quick, args=(seed,)) for seed in range(THREADS)]
    threads += [threading.Thread(target=slowly, args=(100 + seed,)) for seed in range(SLOW_THREADS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = sum(sum(statuses.values()) for statuses in found.values())
    print(f"{total} requests in {time.perf_counter() - started:.0f} s; resident: {resident_mib(server.pid):.0f} MiB")
    for name, statuses in sorted(found.items()):
        print(f"  {name:<14} " + ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())))
    faults = sum(
        n for statuses in found.values() for status, n in statuses.items() if status[0] == "5" and status != "503"
    )
    print(f"5xx but 503: {faults}; lines on standard error: {len(errors)}")

    samples = []
    if options.load_seconds:
        script = Path(__file__).with_name("load.py")
        words = [str(script), "127.0.0.1", str(port), "/predict", "--images", str(options.images), "--form"]
        load = subprocess.Popen(
            [sys.executable, *words, "--seconds", str(options.load_seconds)], stdout=subprocess.PIPE, text=True
        )
        time.sleep(5)
        while load.poll() is None:
            samples.append(resident_mib(server.pid))
            time.sleep(5)
        print("load:", load.communicate()[0].strip())
        print(f"resident under load: first {samples[0]:.0f}, lowest {min(samples):.0f}, highest {max(samples):.0f} MiB")
    well = good(target, random.Random()) == "200" and server.poll() is None
    server.terminate()
    print(f"good request at the end answered: {well}; exit code after SIGTERM: {server.wait(60)}")
    print(*errors[:20], sep="")
    sys.exit(0 if well and not faults and server.returncode == 0 else 1)


if __name__ == "__main__":
    main()
