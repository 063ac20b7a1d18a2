"""Is the config of `imgrec config init`, trained as it is written, better than the document configs? Prints a table.

    python benchmarks/starters.py prepare --work DIR cats-dogs=PATH trashnet=PATH …
    python benchmarks/starters.py train --work DIR [NAME …]
    python benchmarks/starters.py table --work DIR

Both sides get the same folder: of each data set as many training images as `--images` says, in equal parts of its
classes, and up to 60 test images of each class (of the test/ folder, else of what is left). The document configs are
trained as they are, data.folder set. What was trained already is kept, so that the table can be made in pieces.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
DOCUMENTS = [f"document-00{number}" for number in range(5)]
TEST_IMAGES = 60  # of a class


def images_of(folder: Path) -> list[Path]:
    """The images of a class, in an order that follows from their names alone."""
    return sorted(folder.iterdir(), key=lambda path: hashlib.blake2b(path.name.encode()).digest())


def prepare(work: Path, sets: list[str], images: int, minutes: float) -> None:
    for text in sets:
        name, _, source = text.partition("=")
        given = Path(source) / "train"
        training = given if given.is_dir() else Path(source)
        classes = sorted(path.name for path in training.iterdir() if path.is_dir())
        for class_name in classes:
            found = images_of(training / class_name)
            count = images // len(classes)
            judged = images_of(Path(source) / "test" / class_name) if given.is_dir() else found[count:]
            for split, files in (("train", found[:count]), ("test", judged[:TEST_IMAGES])):
                target = work / name / split / class_name
                target.mkdir(parents=True)
                for file in files:
                    shutil.copy(file, target / file.name)
        command = ["config", "init", str(work / name), "-o", str(work / f"{name}.yaml"), "--minutes", str(minutes)]
        imgrec(work, *command)


def imgrec(work: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "imgrec_cli", *words], cwd=work, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode:
        raise SystemExit(f"imgrec {' '.join(words)}: {done.stderr}")
    return done.stdout


def train(work: Path, names: list[str], at_most: int) -> None:
    trained = 0
    for name in names:
        for config in ["init", *reversed(DOCUMENTS)]:  # the quick ones first
            result = work / "results" / name / f"{config}.json"
            if result.exists() or trained == at_most:
                continue
            trained += 1
            result.parent.mkdir(parents=True, exist_ok=True)
            file = work / f"{name}.yaml" if config == "init" else CONFIGS / f"{config}.yaml"
            settings = [] if config == "init" else ["--set", f"data.folder={work / name}"]
            started = time.perf_counter()
            told = imgrec(work, "train", str(file), "--quiet", "--format", "json", *settings)
            record = json.loads(told.splitlines()[-1])["result"]
            scores = {**record["scores"], "seconds": time.perf_counter() - started, "run": record["run"]}
            result.write_text(json.dumps(scores), encoding="utf-8")
            print(f"{name} {config}: {100 * scores['accuracy']:.1f} %, {scores['seconds']:.0f} s", flush=True)


def table(work: Path) -> None:
    print(f"| data set | test images | config init | {' | '.join(DOCUMENTS)} |")
    print("| --- | --- | --- |" + " --- |" * len(DOCUMENTS))
    for folder in sorted((work / "results").iterdir()):
        found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")}
        cells = [
            f"{100 * found[name]['accuracy']:.1f} % ({found[name]['seconds']:.0f} s)" if name in found else "-"
            for name in ["init", *DOCUMENTS]
        ]
        print(f"| {folder.name} | {found['init']['images']} | **{cells[0]}** | {' | '.join(cells[1:])} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "train", "table"])
    parser.add_argument("sets", nargs="*", help="NAME=PATH to prepare, names to train; all by default")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=300, help="training images, validation among them")
    parser.add_argument("--minutes", type=float, default=2.0, help="for imgrec config init")
    parser.add_argument("--at-most", type=int, default=1000, help="trainings of this piece")
    given = parser.parse_intermixed_args()
    place = given.work.resolve()
    place.mkdir(parents=True, exist_ok=True)
    if given.what == "prepare":
        prepare(place, given.sets, given.images, given.minutes)
    elif given.what == "train":
        train(place, given.sets or sorted(file.stem for file in place.glob("*.yaml")), given.at_most)
    else:
        table(place)
