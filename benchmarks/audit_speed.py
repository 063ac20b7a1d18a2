"""How long `imgrec data check` takes on a folder it has never seen.

python benchmarks/audit_speed.py DIR
"""

import os
import subprocess
import sys
import tempfile
import time


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "IMGREC_CACHE": cache}
        command = [sys.executable, "-m", "imgrec_cli", "data", "check", sys.argv[1], "-q"]
        for what in ("first time", "again, from the cache"):
            started = time.perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            print(f"{what}: {time.perf_counter() - started:.1f} s, {done.stdout.splitlines()[-1]}")


if __name__ == "__main__":
    main()
