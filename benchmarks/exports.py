"""Every config of `configs/`, trained for a few epochs on its sample, to every format: does it pass, how large is it?

Command: python benchmarks/exports.py [CONFIG …] [--epochs 3] [--to FORMAT …] [--set KEY=VALUE …]
Prints one row per config and format: same labels as Keras, largest gap, accuracy, size, time of an image; exit code 4
where one does not pass. Needs the extras train and onnx; tflite-micro judges the last format where it is installed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
IMGREC = (sys.executable, "-m", "imgrec_cli")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", default=sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--to", action="append", default=[])
    parser.add_argument("--set", action="append", default=[], help="such as model.weights=FILE.h5, without a network")
    asked = parser.parse_args()
    print("| config | format | same label | largest gap | accuracy | Keras | size | one image |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    failed = 0
    for name in asked.configs:
        with tempfile.TemporaryDirectory() as folder:
            # without augmentation a few epochs teach something
            words = ("--set", f"train.epochs={asked.epochs}", "--set", "augment=[]", "--quiet")
            words += tuple(word for value in asked.set for word in ("--set", value))
            train = [*IMGREC, "train", CONFIGS / f"{name}.yaml", *words]
            subprocess.run(train, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            (run,) = (Path(folder) / "runs").iterdir()
            formats = [word for target in asked.to for word in ("--to", target)]
            done = subprocess.run(
                [*IMGREC, "export", run, *formats, "--format", "json"], cwd=folder, capture_output=True, text=True
            )
            if done.returncode not in (0, 4, 6):
                print(done.stderr, file=sys.stderr)
                return done.returncode
            for one in json.loads(done.stdout)["result"]:
                print(f"| {name} | {row(one)} |", flush=True)
                failed += one["parity"] is None
    return 4 if failed else 0


def row(one: dict) -> str:
    parity = one["parity"]
    if parity is None:
        return f"{one['format']} | not written: {one['error']}"
    agreement = 1 - parity["disagreements"] / parity["images"]
    cells = [
        one["format"],
        f"{100 * agreement:.1f} %",
        f"{parity['largest_gap']:.1e}",
        f"{100 * parity['accuracy']:.1f} %",
        f"{100 * parity['reference_accuracy']:.1f} %",
        f"{one['bytes'] / 1e6:.2f} MB",
        f"{parity['milliseconds']:.2f} ms",
    ]
    return " | ".join(cells)


if __name__ == "__main__":
    sys.exit(main())
