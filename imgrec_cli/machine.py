"""What this machine lets the process use."""

import math
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imgrec_cli.errors import InputError

_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
# two threads at once would save each other's silence as the terminal, and all later errors would be lost
_hushing = threading.RLock()


def available_cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Number of CPU cores this process may use, at least 1: its affinity, and a container's quota where there is one.

    `quota_file` is the cgroup v2 file `cpu.max`: microseconds of CPU time per period, or `max`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2: the affinity stands
    return max(cores, 1)


def matrix_gflops() -> float:
    """Floating-point operations of a float32 matrix product on all cores, in billions a second; takes a second.

    The fastest of many: other work on the machine makes some of them slow.
    """
    import time

    import numpy as np

    side = 1024
    one = np.ones((side, side), np.float32)
    fastest = float("inf")
    begin = time.perf_counter()
    while (started := time.perf_counter()) - begin < 1:
        one @ one
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * side**3 / fastest / 1e9


def nvidia_cards() -> list[str]:
    """Names of the NVIDIA GPUs that the driver knows; empty where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listing = subprocess.run([program, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return listing.stdout.splitlines() if listing.returncode == 0 else []


@contextmanager
def native_messages_hidden(*, only_if: bool = True) -> Iterator[None]:
    """Keep what C++ libraries write to standard error by themselves off the user's terminal.

    TensorFlow and LiteRT greet with lines that no setting of theirs switches off. Python's own errors are exceptions
    and pass. IMGREC_DEBUG shows the lines.
    """
    if not only_if or os.environ.get("IMGREC_DEBUG"):
        yield
        return
    with _hushing:
        sys.stderr.flush()
        try:
            terminal = os.dup(2)
        except OSError:  # no standard error at all, as in a service
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            os.close(nowhere)


def return_large_memory() -> None:
    """Have freed pieces of 256 KiB and more given back to the system at once, for a process that stays.

    glibc keeps them by and by instead, piece by piece larger (mallopt(3), M_MMAP_THRESHOLD): a few large pictures on
    each thread, and a service looks as if it leaked. Elsewhere nothing happens.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 256 * 1024)


def cache_folder() -> Path:
    """The platform's cache folder for imgrec, or what the environment variable IMGREC_CACHE names."""
    import platformdirs  # here: `imgrec predict` passes by on its way to a folder's images

    named = os.environ.get("IMGREC_CACHE")
    return Path(named).absolute() if named else platformdirs.user_cache_path("imgrec", appauthor=False)


def cache_subfolder(name: str) -> Path:
    """A folder in the cache, made where it does not exist. Raises InputError where that is not possible."""
    folder = cache_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made: {error.strerror}",
            "set the environment variable IMGREC_CACHE to a folder that you can write to",
        ) from error
    return folder


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets of the CPU by Linux's names, such as `avx512_bf16`; empty on other systems."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far, in bytes; 0 on Windows, which has no such count in Python."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that this process may still take without swapping: the machine's, and a container's limit where there is
    one; None where the system does not tell."""
    found = []
    try:
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError):
        return None
    for files in _CGROUP_MEMORY:
        limit, used, statistics = (cgroup / file for file in files)
        try:
            cached = re.search(
                r"^(?:total_)?inactive_file (\d+)$", statistics.read_text(encoding="ascii"), re.MULTILINE
            )
            taken = int(used.read_text(encoding="ascii")) - (int(cached[1]) if cached else 0)
            found.append(max(0, int(limit.read_text(encoding="ascii")) - taken))
        except (OSError, ValueError):  # not this version, or no limit
            continue
    return min(found, default=None)


# limit, use and its parts: version 2 of cgroups, then version 1
_CGROUP_MEMORY = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name as its maker spells it; what Python knows of it where the system is not Linux."""
    try:
        found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def git_state(folder: Path) -> dict[str, object] | None:
    """Commit of the git repository that a folder lies in, and whether its files differ; None where there is none."""
    # nothing that the repository's own settings name is run
    git = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
    try:
        commit, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, encoding="utf-8", timeout=10, check=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "changed": bool(changes.stdout.strip())}


def peers_announced() -> bool:
    """Whether the environment names other processes that this one is to train with, as JAX reads it."""
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        return True
    return any(int(os.environ.get(name) or 1) > 1 for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
