"""imgrec predict"""

import csv
import glob
import json
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import chosen_model
from imgrec_cli.cli.options import ModelOption
from imgrec_cli.errors import InputError

if TYPE_CHECKING:
    from imgrec_cli.bundle import Manifest
    from imgrec_cli.classifier import Prediction

SOME_IMAGES_UNREADABLE = 3

Item = TypeVar("Item")


class Order(StrEnum):
    """The order of the answers: as the arguments name them, or those first that the model is least sure of."""

    given = "given"
    unsure = "unsure"


class Format(StrEnum):
    """How predictions are printed; `json` is one value at the end, the others stream."""

    human = "human"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Images, folders, patterns, or - for one image on standard input."),
    ],
    model: ModelOption = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show per image.")] = 3,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Below this probability the answer is: not sure.")
    ] = 0.0,
    coverage: Annotated[
        float | None,
        typer.Option(min=0.5, max=0.99, help="Name the classes among which the true one is that often, such as 0.95."),
    ] = None,
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over slightly changed copies of each image: slower, often better.")
    ] = False,
    format_: Annotated[Format, typer.Option("--format", help="For people, or for programs.")] = Format.human,
    order: Annotated[Order, typer.Option(help="unsure: images first that the model is least sure of.")] = Order.given,
    limit: Annotated[int | None, typer.Option(min=1, help="Answers at most, the first in the order.")] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Also write a sheet of these images, to label them by clicking."),
    ] = None,
) -> None:
    """Say what is on images.

    Example: imgrec predict photo.jpg more-photos/ --format csv
    Example: imgrec predict unlabelled/ --order unsure --limit 100 --sheet next.html
    """
    from imgrec_cli.classifier import Classifier, Prediction, least_sure_first

    images = list(_images(paths))  # before anything is answered: an argument may be wrong
    if sheet is not None and "-" in paths:
        raise InputError("--sheet shows files, and - is none", "name files or folders")
    classifier = Classifier.load(chosen_model(model), min_confidence=min_confidence, coverage=coverage, tta=tta)
    bad = 0

    def answers() -> "Iterator[Prediction]":
        nonlocal bad
        for answer in classifier.predict_many(images):
            if isinstance(answer, Prediction):
                yield answer
            else:
                bad += 1
                output.note(f"not read: {answer.source}: {answer.reason}")

    chosen = answers() if order is Order.given else iter(least_sure_first(list(answers())))
    if limit is not None:
        chosen = islice(chosen, limit)
    if sheet is not None:
        from imgrec_cli.sheets import next_sheet

        answered = list(chosen)
        files = dict(images)
        shown = next_sheet(
            [(answer, Path(str(files[answer.source]))) for answer in answered], classifier.manifest, sheet
        )
        output.note(f"wrote {sheet} with {shown}")
        chosen = iter(answered)
    _PRINTERS[format_](chosen, min(top, len(classifier.class_names)), classifier.manifest)
    if bad:
        raise typer.Exit(SOME_IMAGES_UNREADABLE)


def _images(paths: Iterable[str]) -> Iterator[tuple[str, Path | bytes]]:
    """The images that the arguments name, in natural order within a folder."""
    from imgrec_cli.dataset.scan import image_files

    for text in paths:
        path = Path(text)
        if text == "-":
            yield "-", sys.stdin.buffer.read()
        elif path.is_dir():
            yield from (
                (str(file), file) for file in _not_empty(image_files(path), f"{path}: no images in this folder")
            )
        elif path.exists() or not glob.has_magic(text):
            yield text, path
        else:
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - the pattern may be absolute
            yield from _images(_not_empty(matches, f"{text}: no file matches this pattern"))


def _not_empty(items: "list[Item]", message: str) -> "list[Item]":
    if not items:
        raise InputError(message)
    return items


def _human(answers: "Iterator[Prediction]", top: int, manifest: "Manifest") -> None:
    for answer in answers:
        ranked = "  ".join(f"{manifest.title(label)} {output.percent(share)}" for label, share in answer.ranking[:top])
        first = "" if answer.decision == "class" and answer.label == answer.ranking[0][0] else f"{answer.answer}:  "
        likely = ""
        if answer.likely is not None:
            likely = f"  likely: {', '.join(map(manifest.title, answer.likely)) or 'none'}"
        strange = "  unfamiliar: unlike the training images" if answer.unfamiliar else ""
        output.line(f"{answer.source}: {first}{ranked}{likely}{strange}")


def _json(answers: "Iterator[Prediction]", top: int, manifest: "Manifest") -> None:
    output.result("predict", [answer.as_dict(top) for answer in answers])


def _jsonl(answers: "Iterator[Prediction]", top: int, manifest: "Manifest") -> None:
    for answer in answers:
        output.line(json.dumps(answer.as_dict(top), ensure_ascii=False))


def _csv(answers: "Iterator[Prediction]", top: int, manifest: "Manifest") -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    scored = [f"score:{name}" for name in manifest.class_names]
    writer.writerow(["path", "label", "confidence", *scored, "decision", "unfamiliar", "likely"])
    for answer in answers:
        scores = [f"{answer.scores[name]:.6g}" for name in manifest.class_names]
        unfamiliar = "" if answer.unfamiliarity is None else str(answer.unfamiliar).lower()
        rest = [answer.decision, unfamiliar, "|".join(answer.likely or ())]
        writer.writerow([answer.source, answer.label, f"{answer.confidence:.6g}", *scores, *rest])


_PRINTERS = {Format.human: _human, Format.json: _json, Format.jsonl: _jsonl, Format.csv: _csv}
