"""A load generator for one address: prepared requests over plain sockets, so that little of the machine goes to it.

    python benchmarks/load.py HOST PORT PATH --images DIR [--form] --connections N --seconds S [--rate R [--evenly]]

Without `--rate` every connection asks again as soon as it is answered; with it, requests come at random times (a
Poisson process of R per second) or evenly, whatever the answers do, and a latency counts from the time when it was due.
Prints one JSON line: requests answered by status, errors, seconds, its own CPU time per request, and quantiles of the
latency, in milliseconds.
"""

import argparse
import json
import random
import selectors
import socket
import time
from collections import Counter, deque
from pathlib import Path

BOUNDARY = "loadloadload"


def prepared(host: str, path: str, image: bytes, form: bool) -> bytes:
    """One POST request as bytes: a form with the field `file`, or the image itself."""
    kind = "image/jpeg"
    if form:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
        image = head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
    lines = (f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Type: {kind}", f"Content-Length: {len(image)}")
    return "\r\n".join([*lines, "\r\n"]).encode() + image


class Connection:
    """One keep-alive connection with at most one request on it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.since = 0.0
        self._received = b""

    def ask(self, request: bytes, since: float) -> None:
        self.since, self._received = since, b""
        self.socket.sendall(request)

    def status(self) -> int:
        """The status once the whole answer is there, 0 before. Raises ConnectionError where the server closed."""
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError
        self._received += piece
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return 0
        length = next(
            int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        return int(head.split(b" ", 2)[1]) if len(body) >= length else 0


def load(
    address: tuple[str, int], requests: list[bytes], connections: int, seconds: float, rate: float, evenly: bool
) -> dict[str, object]:
    """Ask for `seconds`; wait for what is under way at the end."""
    random.seed(0)

    def gap() -> float:
        return 1 / rate if evenly else random.expovariate(rate)

    selector = selectors.DefaultSelector()
    idle = deque(Connection(address) for _ in range(connections))
    for connection in idle:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    due: deque[float] = deque()
    asked = errors = 0
    computed = time.process_time()
    start = now = time.perf_counter()
    following = start + (gap() if rate else 0)
    while now < start + seconds or len(idle) < connections:
        now = time.perf_counter()
        if rate:
            while following <= min(now, start + seconds):
                due.append(following)
                following += gap()
        while idle and (due if rate else now < start + seconds):
            connection = idle.popleft()
            connection.ask(requests[asked % len(requests)], due.popleft() if rate else now)
            asked += 1
        wait = max(following - time.perf_counter(), 0) if rate and now < start + seconds else 0.1
        for key, _ in selector.select(min(wait, 0.1)):
            connection = key.data
            try:
                status = connection.status()
            except OSError:
                errors += 1
                selector.unregister(connection.socket)
                connection = Connection(address)
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                idle.append(connection)
                continue
            if status:
                statuses[status] += 1
                latencies.append(time.perf_counter() - connection.since)
                idle.append(connection)
    elapsed = time.perf_counter() - start
    computed = time.process_time() - computed
    latencies.sort()

    def quantile(share: float) -> float:
        return round(1000 * latencies[min(int(share * len(latencies)), len(latencies) - 1)], 2) if latencies else 0.0

    return {
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "errors": errors,
        "seconds": round(elapsed, 2),
        "per_second": round(statuses[200] / elapsed, 1),
        "cpu_milliseconds": round(1000 * computed / max(len(latencies), 1), 3),
        "milliseconds": {"p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99), "max": quantile(1)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask one address over and over.")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEG images, 200 of which are sent")
    parser.add_argument("--form", action="store_true", help="as a form, not as the body")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=0, help="requests per second; as many as are answered by default")
    parser.add_argument("--evenly", action="store_true", help="with --rate: at equal distances, not at random times")
    options = parser.parse_args()
    files = sorted(options.images.rglob("*.jpg"))
    chosen = files[:: max(1, len(files) // 200)][:200]
    requests = [prepared(options.host, options.path, file.read_bytes(), options.form) for file in chosen]
    address = (options.host, options.port)
    print(json.dumps(load(address, requests, options.connections, options.seconds, options.rate, options.evenly)))


if __name__ == "__main__":
    main()
