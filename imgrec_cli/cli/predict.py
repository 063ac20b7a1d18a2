"""imgrec predict"""

import csv
import glob
import re
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import chosen_model
from imgrec_cli.cli.options import CoverageOption, MinConfidenceOption, ModelOption
from imgrec_cli.errors import InputError
from imgrec_cli.progress import Advance

if TYPE_CHECKING:
    from imgrec_cli.bundle import Manifest
    from imgrec_cli.classifier import Prediction
    from imgrec_cli.storage import File

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
    min_confidence: MinConfidenceOption = 0.0,
    coverage: CoverageOption = None,
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
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write the answers into this .csv or .jsonl; typed again, an interrupted command goes on with it.",
        ),
    ] = None,
    sort_into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also copy each image into a folder of its class below this one.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="With --sort-into: links in place of copies.")] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Answer only part I of N of the images, such as 3/8 for an array job."),
    ] = None,
) -> None:
    """Say what is on images.

    Example: imgrec predict photo.jpg more-photos/ --format csv
    Example: imgrec predict unlabelled/ --order unsure --limit 100 --sheet next.html
    Example: imgrec predict photos/ --out answers.csv --sort-into sorted
    """
    from imgrec_cli.classifier import Classifier, Prediction, least_sure_first

    _check(paths)  # before anything is answered: an argument may be wrong
    if sheet is not None and "-" in paths:
        raise InputError("--sheet shows files, and - is none", "name files or folders")
    if out is not None and (order is not Order.given or limit is not None or sheet is not None):
        raise InputError("--out is for all images in the order given", "leave out --order, --limit and --sheet")
    if link and sort_into is None:
        raise InputError("--link says how images are sorted", "name a folder with --sort-into DIR")
    part = None if shard is None else _part(shard)
    model = chosen_model(model)
    classifier = Classifier.load(model, min_confidence=min_confidence, coverage=coverage, tta=tta)
    manifest, top = classifier.manifest, min(top, len(classifier.class_names))
    given: dict[str, Path] = {}
    files: dict[str, Path] = {}  # of a sheet
    bad = answered = 0

    def images() -> "Iterator[tuple[str, File | bytes]]":
        for name, source in _images(paths):
            if part is not None and not in_shard(name, part):
                continue
            if file is not None and name in file.answered:
                continue
            if (sort_into is not None or sheet is not None) and isinstance(source, Path):
                given[name] = source
            yield name, source

    def answers() -> "Iterator[Prediction]":
        nonlocal bad, answered
        for answer in classifier.predict_many(images()):
            image = given.pop(answer.source, None)
            if sheet is not None and image is not None:
                files[answer.source] = image
            if isinstance(answer, Prediction):
                if folder is not None and image is not None:
                    folder.add(image, answer)
                answered += 1
                yield answer
            else:
                bad += 1
                output.note(f"not read: {answer.source}: {answer.reason}")

    file = folder = None
    if out is not None or sort_into is not None or part is not None:
        from imgrec_cli.answers import AnswerFile, SortedFolder, in_shard

        folder = None if sort_into is None else SortedFolder(sort_into, classifier.class_names, link=link)
        if out is not None:
            options = {"shard": shard, "min_confidence": min_confidence, "coverage": coverage, "tta": tta}
            file = AnswerFile(out, manifest, options, top if out.suffix == ".jsonl" else None)
    if file is None:
        chosen = answers() if order is Order.given else iter(least_sure_first(list(answers())))
        chosen = chosen if limit is None else islice(chosen, limit)
        if sheet is not None:
            from imgrec_cli.sheets import next_sheet

            shown = list(chosen)
            said = next_sheet([(answer, files[answer.source]) for answer in shown], manifest, sheet)
            output.note(f"wrote {sheet} with {said}")
            chosen = iter(shown)
        _PRINTERS[format_](chosen, top, manifest)
    else:
        if len(file.answered):
            output.note(f"{out} holds {len(file.answered):,} answers: going on")
        total = _count(paths) if sys.stdout.isatty() else 0
        with output.ProgressPrinter(output.Format.human, quiet=not total) as progress, file.adding() as writer:
            for answer in answers():
                writer.add(answer)
                progress(Advance("answering", len(file.answered) + answered + bad, total))
        unread = f", {bad} not read" if bad else ""
        output.line(f"{answered:,} answered{unread}: {out}")
    if bad:
        raise typer.Exit(SOME_IMAGES_UNREADABLE)


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    part, parts = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise InputError(f"--shard {text}: not a part", "I/N, with I from 1 to N, such as 3/8")
    return part, parts


def _check(paths: Iterable[str]) -> None:
    """Raise where an argument names a folder without images, or a pattern that nothing matches."""
    for text in paths:
        if text != "-" and (Path(text).is_dir() or not Path(text).exists()):
            next(_images([text]), None)


def _count(paths: Iterable[str]) -> int:
    return sum(1 for _ in _images(path for path in paths if path != "-"))


def _images(paths: Iterable[str]) -> "Iterator[tuple[str, File | bytes]]":
    """The images that the arguments name, in natural order within a folder."""
    from imgrec_cli.dataset.walk import images_in_order
    from imgrec_cli.storage import is_url, located

    for text in paths:
        path = Path(text)
        if text == "-":
            yield "-", sys.stdin.buffer.read()
        elif path.is_dir():
            found = images_in_order(path)
            first = next(found, None)
            if first is None:
                raise InputError(f"{path}: no images in this folder")
            yield from ((file, Path(file)) for file in chain([first], found))
        elif path.exists() or is_url(text) or not glob.has_magic(text):
            yield text, located(text)
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
    from imgrec_cli.answers import json_line

    for answer in answers:
        output.line(json_line(answer, top))


def _csv(answers: "Iterator[Prediction]", top: int, manifest: "Manifest") -> None:
    from imgrec_cli.answers import csv_columns, csv_row

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(csv_columns(manifest.class_names))
    for answer in answers:
        writer.writerow(csv_row(answer, manifest.class_names))


_PRINTERS = {Format.human: _human, Format.json: _json, Format.jsonl: _jsonl, Format.csv: _csv}
