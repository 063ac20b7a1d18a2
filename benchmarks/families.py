"""Every family of keras.applications at its smallest member, trained from scratch and frozen, to LiteRT: does it pass?

Command: python benchmarks/families.py [FAMILY …] [--side 96] [--to FORMAT …]
Two classes of the sample, one epoch. Frozen ones have random weights, in a file that is read as one of theirs.
Prints a row as soon as it is known; exit code 4 where a training or a float32 export does not pass.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMGREC = (sys.executable, "-m", "imgrec_cli")
SMALLEST = {
    "mobilenet_v2": 0.35,
    "mobilenet_v3_small": 0.75,
    "mobilenet_v3_large": 0.75,
    "efficientnet_v2_b0": 1,
    "efficientnet_v2_s": 1,
    "resnet50": 1,
    "resnet50_v2": 1,
    "convnext_tiny": 1,
    "densenet121": 1,
    "xception": 1,
}
CONFIG = """\
data: {{folder: {folder}, classes: {{include: [{classes}]}}}}
image: {{size: [{side}, {side}]}}
model: {{type: backbone, name: {name}, width: {width}, {more}}}
train: {{batch_size: 16, epochs: 1, precision: float32}}
"""
WRITE_WEIGHTS = """\
import sys, keras
from imgrec_cli.config import load_config
from imgrec_cli.training.families import application
config = load_config(sys.argv[1])
keras.utils.set_random_seed(0)
application(config.model, config.image).save_weights(sys.argv[2])
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=list(SMALLEST))
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--to", nargs="+", default=["litert", "litert-int8"])
    asked = parser.parse_args()
    print(f"| family | trained | seconds |{''.join(f' {target}: same label, gap, size |' for target in asked.to)}")
    print(f"| --- | --- | --- |{' --- |' * len(asked.to)}")
    failed = 0
    for name in asked.families:
        for kind in ("from scratch", "frozen"):
            with tempfile.TemporaryDirectory() as folder:
                cells, passed = judged(name, asked.side, asked.to, Path(folder), frozen=kind == "frozen")
            failed += not passed
            width = "" if SMALLEST[name] == 1 else f", width {SMALLEST[name]}"
            print(f"| {name}{width} | {kind} | {' | '.join(cells)} |", flush=True)
    return 4 if failed else 0


def judged(name: str, side: int, targets: list[str], folder: Path, *, frozen: bool) -> tuple[list[str], bool]:
    """Seconds of the training with all that follows, a cell for each format, and whether what has to pass did."""
    config, weights, sample = folder / "family.yaml", folder / "family.weights.h5", ROOT / "data" / "fashion-mini"
    classes = ", ".join(sorted(path.name for path in (sample / "train").iterdir())[:2])
    plain = {"folder": sample, "classes": classes, "side": side, "name": name, "width": SMALLEST[name]}
    config.write_text(CONFIG.format(**plain, more="weights: none"), encoding="utf-8")
    if frozen:
        subprocess.run([sys.executable, "-c", WRITE_WEIGHTS, config, weights], check=True, capture_output=True)
        config.write_text(CONFIG.format(**plain, more=f"weights: {weights}, freeze: true"), encoding="utf-8")
    began = time.perf_counter()
    done = subprocess.run([*IMGREC, "train", config, "--quiet"], cwd=folder, capture_output=True, text=True)
    seconds = f"{time.perf_counter() - began:.0f}"
    if done.returncode:
        return [
            seconds,
            *(f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}" for _ in targets),
        ], False
    (run,) = (folder / "runs").iterdir()
    formats = [word for target in targets for word in ("--to", target)]
    done = subprocess.run(
        [*IMGREC, "export", run, *formats, "--format", "json"], cwd=folder, capture_output=True, text=True
    )
    found = {one["format"]: one for one in json.loads(done.stdout)["result"]} if done.stdout else {}
    cells = [cell(found.get(target), done.stderr) for target in targets]
    return [seconds, *cells], bool(found) and found[targets[0]]["parity"] is not None


def cell(one: dict | None, said: str) -> str:
    if one is None or one["parity"] is None:
        return f"refused: {one['error'] if one else said.strip()}"
    parity = one["parity"]
    agreement = 1 - parity["disagreements"] / parity["images"]
    return f"{100 * agreement:.1f} %, {parity['largest_gap']:.1e}, {one['bytes'] / 1e6:.2f} MB"


if __name__ == "__main__":
    sys.exit(main())
