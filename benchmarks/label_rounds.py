"""Label issues on a set whose labels were changed at random: how many are found, and what three rounds of looking give.

    python benchmarks/label_rounds.py --images DIR [--per-class 200] [--flipped 5] [--chromium /usr/bin/chromium]

DIR has train/ and test/ with class folders. A copy of some of its images gets wrong labels in train; in each round the
sheet of `imgrec data label-issues` is opened in headless Chromium, a person is played who knows the true labels and
decides about its pictures by keyboard, and the file that the page saves is the next round's data.corrections.
Needs the extra train and Playwright for Python.
"""

import argparse
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean

from imgrec_cli import train
from imgrec_cli.api import label_issues
from imgrec_cli.dataset.digests import digest_of_file
from imgrec_cli.sheets import issues_sheet

CONFIG = """\
seed: 0
data: {folder: images, split: {validation: 15%}}
image: {size: [28, 28], color: gray}
model:
  type: layers
  layers:
    - {type: conv, filters: 32, padding: same, activation: relu}
    - {type: pool}
    - {type: conv, filters: 64, padding: same, activation: relu}
    - {type: pool}
    - {type: flatten}
    - {type: dropout, rate: 0.3}
    - {type: dense, units: 64, activation: relu}
train: {epochs: 10, precision: float32}
"""


def copied(source: Path, target: Path, per_class: int, flipped: float, seed: int) -> tuple[dict[str, str], set[str]]:
    """Copy images, some of train under another class; the true label by digest, and the digests of the changed ones."""
    draw = random.Random(seed)
    classes = sorted(folder.name for folder in (source / "train").iterdir() if folder.is_dir())
    truth, wrong, number = {}, set(), 0
    for split in ("train", "test"):
        for name in classes:
            (target / split / name).mkdir(parents=True)
        for name in classes:
            files = sorted((source / split / name).iterdir())
            for file in draw.sample(files, min(per_class, len(files))):
                label, number = name, number + 1
                if split == "train" and draw.random() < flipped / 100:
                    label = draw.choice([other for other in classes if other != name])
                copy = target / split / label / f"{number:06}{file.suffix}"  # the name does not tell the class
                shutil.copyfile(file, copy)
                truth[digest_of_file(str(copy))] = name
                if label != name:
                    wrong.add(digest_of_file(str(copy)))
    return truth, wrong


def decide(sheet: Path, truth: dict[str, str], saved: Path, chromium: str) -> int:
    """Go through a sheet by keyboard as somebody who knows the labels, save, and return the number of decisions."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(sheet.as_uri())
        cards = page.locator(".card")
        count = cards.count()
        page.keyboard.press("ArrowRight")
        for index in range(count):
            card = page.evaluate("(({path, label, suggested, hash}) => ({label, suggested, hash}))"
                                 "(document.activeElement.dataset)")  # fmt: skip
            true = truth[card["hash"]]
            if true == card["label"]:
                page.keyboard.press("k")
            elif true == card["suggested"]:
                page.keyboard.press("a")
            else:
                cards.nth(index).locator("select").select_option(true)
                cards.nth(index).focus()
                page.keyboard.press("ArrowRight")
        with page.expect_download() as download:
            page.keyboard.press("s")
        download.value.save_as(saved)
        browser.close()
    return count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=200)
    parser.add_argument("--flipped", type=float, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="of the training runs whose mean is told")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth, wrong = copied(asked.images, folder / "images", asked.per_class, asked.flipped, seed=0)
        (folder / "set.yaml").write_text(CONFIG)
        corrections = folder / "corrections.csv"
        print(f"{len(truth)} images, {len(wrong)} of train with a wrong label")
        for step in range(4):
            given = [f"data.corrections={corrections}"] if corrections.exists() else []
            scores = [
                train(folder / "set.yaml", [*given, f"seed={seed}"], runs=folder / "runs").record["scores"]["accuracy"]
                for seed in range(asked.seeds)
            ]
            told = ", ".join(f"{100 * score:.1f}" for score in scores)
            print(f"after {step} rounds: test accuracy {100 * mean(scores):.1f} % ({told})", flush=True)
            if step == 3:
                break
            found = label_issues(folder / "set.yaml", given)
            # the test images are right: the question is what is found among the others
            doubtful = [issue for issue in found.ranked if issue.split != "test"]
            found = replace(found, ranked=doubtful)
            top = doubtful[: len(doubtful) // 20]
            hits = sum(issue.digest in wrong for issue in top)
            left = sum(issue.digest in wrong and truth[issue.digest] != issue.label for issue in found.ranked)
            text = f"{hits} of {left} wrong labels left are in the top 5 % ({100 * hits / max(left, 1):.0f} %)"
            issues_sheet(found, folder / "sheet.html", len(top))
            count = decide(folder / "sheet.html", truth, folder / "saved.csv", asked.chromium)
            shutil.move(folder / "saved.csv", corrections)
            print(f"round {step + 1}: {text}; {count} pictures looked at", flush=True)


if __name__ == "__main__":
    main()
