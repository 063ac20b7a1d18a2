"""What every contestant of a race speaks: `ready` after set-up and warm-up, then for each `go N` how long N steps took.

Standard library only, and for contestants only: importing it turns what they print to standard error.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

# what libraries print must not mix with the answers
_answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def say(**fields: object) -> None:
    """Answer the runner with one JSON line."""
    print(json.dumps(fields), file=_answers, flush=True)


def skip(reason: str) -> None:
    """Leave the race with a reason that the table shows."""
    say(skip=reason)
    sys.exit()


def cores() -> int:
    """Cores this process may use; everyone uses all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(*packages: str) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def serve(
    train: Callable[[int], float], *, images_per_step: float, warm_up: int, used: dict[str, str], note: str = ""
) -> None:
    """Warm up, then train as many steps as each line of standard input says and answer with images and seconds.

    `train(N)` starts its input anew, as an epoch of N steps does, and returns the `time.perf_counter()` at which its
    last step was done. `used` are the versions and `note` the remark for the table.
    """
    train(warm_up)
    say(ready=True, versions=used, note=note)
    for line in sys.stdin:
        steps = int(line.removeprefix("go "))
        started = time.perf_counter()
        say(images=steps * images_per_step, seconds=train(steps) - started)
