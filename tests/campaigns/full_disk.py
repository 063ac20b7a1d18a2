"""Fill the disk at every place where a training writes, and see that the run says so and goes on once there is room.

python tests/campaigns/full_disk.py [--per-site 1]        as root, on Linux: it mounts a small tmpfs

Runs, cache and temporary files lie on a tmpfs of 24 MB. A first run counts every file that is opened for writing and
every folder that is made there. Then, for each such place, a run whose disk is filled up to the last byte just before:
the write fails with the system's own error. The process has to end with exit code 7 and one message, or to do without
the file where it is a mere help (the index of the cache). The disk is then cleared and the run resumed: the end has to
equal, to the bit, that of the run whose disk was never full. Prints the table of docs/robustness.md.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import kill

ROOT = Path(__file__).parents[2]
CHILD = """\
import os, sys

disk, fatal = os.environ["CAMPAIGN_DISK"], int(os.environ["CAMPAIGN_FATAL"])
count, seen, busy = 0, open(os.environ["CAMPAIGN_SEEN"], "w", buffering=1), False

def fill():
    with open(os.path.join(disk, "filler"), "wb", buffering=0) as stream:
        for block in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    stream.write(bytes(block))
            except OSError:
                pass

def watch(event, arguments):
    global count, busy
    if busy or not (event == "os.mkdir" or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))):
        return
    path = arguments[0]
    if isinstance(path, (str, bytes)) and os.path.abspath(os.fsdecode(path)).startswith(disk + os.sep):
        count += 1
        seen.write(os.path.relpath(os.fsdecode(path), disk) + "\\n")
        if count == fatal:
            busy = True
            fill()
            busy = False

sys.addaudithook(watch)
from imgrec_cli.cli import main
main()
"""


def imgrec(disk: Path, *words: str, fatal: int = 0) -> tuple[int, str, list[str]]:
    """Run imgrec on the small disk, full from its write number `fatal` on; exit code, what it said, its writes."""
    (disk / "tmp").mkdir(exist_ok=True)
    seen = disk.parent / "seen.txt"
    environment = {
        "PYTHONPATH": str(ROOT),
        "IMGREC_CACHE": str(disk / "cache"),
        "TMPDIR": str(disk / "tmp"),
        "CAMPAIGN_DISK": str(disk),
        "CAMPAIGN_FATAL": str(fatal),
        "CAMPAIGN_SEEN": str(seen),
    }
    with (disk.parent / "out.txt").open("w+") as said:
        _, status = os.waitpid(kill.start(disk, environment, said.fileno(), words, CHILD), 0)
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read(), seen.read_text().splitlines()


def site(path: str) -> str:
    """A path without what differs from run to run."""
    path = re.sub(r"runs/[^/]+", "runs/RUN", path)
    path = re.sub(r"[0-9a-f]{32}", "KEY", path)
    path = re.sub(r"\.\d+\.tmp$", "", path)
    path = re.sub(r"/\.([^/]+)$", r"/\1", path)
    return re.sub(r"^tmp/[^/]+", "tmp/…", path)


def cleared(disk: Path) -> None:
    for entry in disk.iterdir():
        if entry.name != "campaign.yaml":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-site", type=int, default=1, help="runs per place, spread over the times it is written")
    options = parser.parse_args()
    kill.load_packages()
    base = Path(tempfile.mkdtemp(prefix="imgrec-disk-"))
    disk = base / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    failures, rows = 0, []
    try:
        config = kill.CONFIG.replace("FOLDER", str(ROOT / "data" / "fashion-mini")).replace("epochs: 5", "epochs: 2")
        (disk / "campaign.yaml").write_text(config)
        code, out, writes = imgrec(disk, "train", "campaign.yaml")
        assert code == 0, out
        (run,) = (disk / "runs").iterdir()
        expected = kill.fingerprint(run)
        places = defaultdict(list)
        for number, path in enumerate(writes, 1):
            places[site(path)].append(number)
        for name, numbers in places.items():
            step = max(1, len(numbers) // options.per_site)
            codes: Counter[int] = Counter()
            equal, tried = 0, numbers[::step][: options.per_site]
            for number in tried:
                cleared(disk)
                code, out, _ = imgrec(disk, "train", "campaign.yaml", fatal=number)
                codes[code] += 1
                (disk / "filler").unlink(missing_ok=True)
                found = list((disk / "runs").glob("*/run.json"))
                words = (
                    ["train", "--resume", str(found[0].parent.relative_to(disk))]
                    if found
                    else ["train", "campaign.yaml"]
                )
                again, said, _ = imgrec(disk, *words)
                found = list((disk / "runs").glob("*/run.json"))
                same = again == 0 and kill.fingerprint(found[0].parent) == expected
                good = same and code in (0, 7) and "Traceback" not in out + said
                equal += good
                failures += not good
                if not good:
                    print(f"{name} ({number}): code {code}, then {again}: {out[-400:]} {said[-400:]}", flush=True)
                    print(json.dumps(kill.fingerprint(found[0].parent))[:2000] if found else "no run", flush=True)
            said = ", ".join(str(code) for code in sorted(codes))
            rows.append(f"| `{name}` | {len(numbers)} | {len(tried)} | {said} | {equal} of {len(tried)} |")
            print(rows[-1], flush=True)
    finally:
        subprocess.run(["umount", str(disk)], check=False)
        shutil.rmtree(base, ignore_errors=True)
    print("\n| what was being written | times in a run | disk filled | exit code | resumed to the same bits |")
    print("| --- " * 5 + "|")
    print("\n".join(rows))
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
