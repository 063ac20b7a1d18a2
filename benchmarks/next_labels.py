"""The images to label next: those a model is least sure of, against as many at random.

    python benchmarks/next_labels.py --images DIR [--pool 3000] [--start 100] [--step 100] [--rounds 3] [--seeds 5]

DIR has train/ and test/ with class folders. Both ways start from the same labelled images and go on with a manifest, as
`imgrec predict --order unsure` and its sheet write it; the label is the folder's name. Needs the extra train.
"""

import argparse
import csv
import random
import tempfile
from pathlib import Path
from statistics import mean, stdev

from imgrec_cli import Classifier, train
from imgrec_cli.classifier import Prediction, least_sure_first

CONFIG = """\
data: {manifest: labels.csv, split: {validation: 20%}}
image: {size: [28, 28], color: gray}
model:
  type: layers
  layers:
    - {type: conv, filters: 16, padding: same, activation: relu}
    - {type: pool}
    - {type: conv, filters: 32, padding: same, activation: relu}
    - {type: pool}
    - {type: flatten}
    - {type: dropout, rate: 0.3}
    - {type: dense, units: 64, activation: relu}
train: {epochs: 25, batch_size: 16, precision: float32}
"""


def accuracy(folder: Path, labelled: list[Path], test: list[Path], seed: int) -> tuple[float, Path]:
    """Train on the labelled images and return the accuracy on the test images, and the run."""
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split"])
        writer.writerows([file, file.parent.name, "train"] for file in labelled)
        writer.writerows([file, file.parent.name, "test"] for file in test)
    # the same picture twice in the published set is no reason to stop here
    run = train(folder / "set.yaml", [f"seed={seed}", "data.on_leak=keep"], runs=folder / "runs")
    return run.record["scores"]["accuracy"], run.folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, required=True)
    for option, default in (("pool", 3000), ("start", 100), ("step", 100), ("rounds", 3), ("seeds", 5)):
        parser.add_argument(f"--{option}", type=int, default=default)
    asked = parser.parse_args()
    found: dict[str, dict[int, list[float]]] = {"unsure": {}, "random": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "set.yaml").write_text(CONFIG)
        for seed in range(asked.seeds):
            draw = random.Random(seed)
            pool = draw.sample(sorted((asked.images / "train").rglob("*.png")), asked.pool)
            test = draw.sample(sorted((asked.images / "test").rglob("*.png")), 1000)
            first, first_run = accuracy(folder, pool[: asked.start], test, seed)  # is the same both ways
            for way, scores in found.items():
                labelled, rest = pool[: asked.start], pool[asked.start :]
                score, run = first, first_run
                scores.setdefault(len(labelled), []).append(score)
                for _ in range(asked.rounds):
                    if way == "unsure":
                        answers = Classifier.load(run).predict_many((str(file), file) for file in rest)
                        order = least_sure_first([answer for answer in answers if isinstance(answer, Prediction)])
                        rest = [Path(answer.source) for answer in order]
                    labelled, rest = labelled + rest[: asked.step], rest[asked.step :]
                    score, run = accuracy(folder, labelled, test, seed)
                    scores.setdefault(len(labelled), []).append(score)
                print(f"seed {seed} {way}: " + ", ".join(f"{100 * s[-1]:.1f}" for s in scores.values()), flush=True)
    print("labels  unsure        random        seeds where unsure is better")
    for number, unsure in found["unsure"].items():
        random_ones = found["random"][number]
        wins = sum(a > b for a, b in zip(unsure, random_ones, strict=True))
        cells = [f"{100 * mean(s):.1f} ± {100 * stdev(s):.1f}" for s in (unsure, random_ones)]
        print(f"{number:6}  {cells[0]:12}  {cells[1]:12}  {wins} of {len(unsure)}")


if __name__ == "__main__":
    main()
