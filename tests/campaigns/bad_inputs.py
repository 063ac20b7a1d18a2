"""Every file of a folder of odd, broken and hostile images through data check, predict and a training run, as a table.

python tests/campaigns/bad_inputs.py FOLDER        its subfolders are the kinds

Each file alone through `imgrec predict` in a process of its own, for time and memory; then all of them together as one
class of a training set, the sample's pictures as the others: what `imgrec data check` names and what training leaves
out has to be what predict could not read, and nothing may be invented or relabelled. The figures are the largest of a
kind.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGE_NAMES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
CONFIG = """\
data: {folder: images}
image: {size: [28, 28], color: rgb, range: [0, 255]}
model: {type: layers, layers: [{type: conv, filters: 8, stride: 2, activation: relu}, {type: flatten}]}
train: {batch_size: 8, epochs: 1}
"""


def imgrec(folder: Path, *words: str) -> tuple[int, str, str, float, float]:
    """Exit code, output, errors, CPU seconds and megabytes of one imgrec process, which is ended after two minutes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IMGREC_CACHE": str(folder / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "imgrec_cli", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    hung = threading.Timer(120, process.kill)
    hung.start()
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    hung.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, out, err, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    work = Path(tempfile.mkdtemp(prefix="imgrec-bad-"))
    images = work / "images"
    shutil.copytree(ROOT / "data" / "fashion-mini" / "train", images)
    (images / "odd").mkdir()
    (work / "bad.yaml").write_text(CONFIG)
    kinds = sorted(path for path in folder.iterdir() if path.is_dir())
    origin = {}
    for kind in kinds:
        for file in sorted(kind.iterdir()):
            origin[f"odd/{kind.name}--{file.name}"] = (kind.name, file)
            shutil.copy(file, images / "odd" / f"{kind.name}--{file.name}")
    code, out, err, seconds, megabytes = imgrec(work, "train", "bad.yaml")
    failures = []
    if code or "Traceback" in err:
        failures.append(f"train ended with {code}: {err[-500:]}")
    (run,) = (work / "runs").iterdir()
    with (run / "examples.csv").open(newline="") as stream:
        used = {row["path"]: row["label"] for row in csv.DictReader(stream) if row["path"].startswith("odd/")}
    skipped = {}
    if (run / "skipped.csv").exists():
        with (run / "skipped.csv").open(newline="") as stream:
            skipped = {row["path"]: row["reason"] for row in csv.DictReader(stream)}
    code, out, err, check_seconds, check_megabytes = imgrec(work, "data", "check", "images", "--format", "json")
    findings = json.loads(out.splitlines()[-1])["result"]["findings"]
    named = {path for finding in findings for path in finding["reasons"]}
    if named != skipped.keys():
        failures.append(f"data check names {sorted(named ^ skipped.keys())} otherwise than training")
    not_listed = [path for path in origin if path not in used and path not in skipped]
    failures += [f"{path}: labelled {label}" for path, label in used.items() if label != "odd"]
    failures += [f"{path}: neither used nor named" for path in not_listed if path.lower().endswith(IMAGE_NAMES)]
    rows = {kind.name: [0, 0, 0, 0, 0, 0, 0.0, 0.0] for kind in kinds}
    for path, (kind, file) in origin.items():
        code, out, err, seconds_each, megabytes_each = imgrec(
            work, "predict", "-m", str(run), str(file), "--format", "json"
        )
        answered = len(json.loads(out)["result"]) if out else 0
        row = rows[kind]
        row[0] += 1
        row[1] += answered
        row[2] += code == 3
        row[3] += path in used
        row[4] += path in skipped
        row[5] += path in named
        row[6], row[7] = max(row[6], seconds_each), max(row[7], megabytes_each)
        lines = [line for line in err.splitlines() if line]
        if code not in (0, 3) or "Traceback" in err or (code == 3 and len(lines) != 1):
            failures.append(f"{file}: predict ended with {code}: {err[-300:]}")
        if (path in used and not answered) or (path in skipped and answered):
            failures.append(f"{file}: training and predict do not agree")
        if seconds_each > 5 or megabytes_each > 1024:
            failures.append(f"{file}: {seconds_each:.1f} s, {megabytes_each:.0f} MB")
    print(
        "| kind | files | predict answers | predict names as unreadable | train uses | train names as left out | "
        "data check names | most CPU seconds of a predict | most memory of a predict |"
    )
    print("| --- " * 9 + "|")
    for kind, (files, answers, unreadable, uses, left_out, checked, most_seconds, most_megabytes) in rows.items():
        print(
            f"| {kind} | {files} | {answers} | {unreadable} | {uses} | {left_out} | {checked} | {most_seconds:.1f} s | "
            f"{most_megabytes:.0f} MB |"
        )
    print(
        f"\ntrain: {seconds:.0f} CPU s, {megabytes:.0f} MB; data check: {check_seconds:.1f} CPU s, "
        f"{check_megabytes:.0f} MB; not images by their names, so not looked at: {len(not_listed)}"
    )
    for failure in failures:
        print(failure)
    shutil.rmtree(work)
    return min(len(failures), 1)


if __name__ == "__main__":
    sys.exit(main())
