"""A sheet holds everything and nothing else, escapes what it shows, and saves what was decided."""

import csv
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imgrec_cli.bundle import Manifest, Parity
from imgrec_cli.classifier import Prediction
from imgrec_cli.dataset.corrections import read_corrections
from imgrec_cli.dataset.look import look_at
from imgrec_cli.dataset.manifest import read_manifest
from imgrec_cli.imaging import PixelSpec, thumbnail
from imgrec_cli.sheets import audit_sheet, next_sheet
from imgrec_cli.sheets.sheet import Card, Section, limited

NASTY = 'a"><script>x()<'
CHROMIUM = shutil.which("chromium")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes with a picture under both, and a class whose name is markup; one picture carries metadata."""
    random_colors = [(30 * n, 255 - 20 * n, (70 * n) % 256) for n in range(8)]
    for name in ("cat", "dog", NASTY):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, color in enumerate(random_colors):
            image = Image.new("RGB", (40, 30), color)
            image.paste((255, 255, 255), (number, len(name), number + 20, len(name) + 9))
            exif = Image.Exif()
            exif[0x010E] = "SECRET PLACE"
            image.save(tmp_path / "photos" / name / f"{number}.jpg", exif=exif, quality=95)
    shutil.copyfile(tmp_path / "photos/cat/1.jpg", tmp_path / "photos/dog/again.jpg")
    shutil.copyfile(tmp_path / "photos/cat/2.jpg", tmp_path / "photos" / NASTY / "<b>&.jpg")
    return tmp_path / "photos"


def manifest(*classes: str) -> Manifest:
    spec = PixelSpec((8, 8), "rgb", "stretch")
    return Manifest("m", "", list(classes), spec, {}, Parity(0, 0, 0, 0), {}, titles={"cat": "Кошка"})


def test_a_sheet_is_whole_and_escaped(photos: Path, tmp_path: Path) -> None:
    told = audit_sheet(look_at(photos), tmp_path / "sheet.html", 100)
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert re.match(r"\d+ pictures embedded, [\d.]+ kB", told)
    assert "<script>x()" not in text
    assert "&lt;b&gt;&amp;.jpg" in text
    assert text.count("<script") == 2  # data and code
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text
    assert str(tmp_path) not in text
    assert "This file embeds small copies" in text


def test_thumbnails_hold_no_metadata(photos: Path) -> None:
    assert b"SECRET" in (photos / "cat/1.jpg").read_bytes()
    small = thumbnail(photos / "cat/1.jpg", 20)
    assert b"SECRET" not in small
    image = Image.open(io.BytesIO(small))
    assert image.size == (20, 15)
    assert not dict(image.getexif())


def test_a_sheet_is_bounded_and_says_of_how_many(photos: Path, tmp_path: Path) -> None:
    look = look_at(photos)
    total = sum(len(finding.places) for finding in look.findings)
    assert audit_sheet(look, tmp_path / "sheet.html", 3).startswith(f"3 of {total} pictures embedded")
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert text.count('<article class="card"') == 3
    assert f"3 of {total} pictures" in text


def test_the_limit_is_shared_among_sections() -> None:
    def section(count: int) -> Section:
        return Section("", "", [[Card(f"{index}", "")] for index in range(count)])

    assert [len(s.groups) for s in limited([section(100), section(2), section(30)], 20)] == [9, 2, 9]
    assert [s.more for s in limited([section(100), section(2), section(30)], 20)] == [91, 0, 21]
    assert [len(s.groups) for s in limited([section(3), section(2)], 20)] == [3, 2]


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Any]]:
    """Opens a page in headless Chromium, and lets it reach nothing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

        def open_page(path: Path) -> Any:
            page = browser.new_page(viewport={"width": 375, "height": 800})
            page.errors = []
            page.on("pageerror", lambda error: page.errors.append(str(error)))
            page.on(
                "request", lambda request: page.errors.append(request.url) if request.url.startswith("http") else None
            )
            page.goto(path.as_uri())
            return page

        yield open_page
        browser.close()


def saved(page: Any, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    target = folder / download.value.suggested_filename
    download.value.save_as(target)
    return target


def test_decisions_by_keyboard_and_mouse_are_saved(photos: Path, tmp_path: Path, opened: Callable[[Path], Any]) -> None:
    look = look_at(photos)
    audit_sheet(look, tmp_path / "sheet.html", 100)
    page = opened(tmp_path / "sheet.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.keyboard.press("ArrowDown")
    paths = [page.evaluate("document.activeElement.dataset.path")]
    page.keyboard.press("k")
    paths.append(page.evaluate("document.activeElement.dataset.path"))
    page.keyboard.press("e")
    third = page.evaluate("document.activeElement.dataset.path")
    page.locator(".card").nth(2).locator("select").select_option(NASTY)
    page.locator(".card").nth(3).get_by_role("button", name="Exclude").click()
    page.locator(".card").nth(3).get_by_role("button", name="Exclude").click()  # taken back
    assert page.get_by_role("status").inner_text() == "3 decided, not saved yet"
    file = saved(page, tmp_path)
    assert page.errors == []
    assert file.name == "corrections.csv"
    found = {one.path: one for one in read_corrections(file)}
    assert set(found) == {*paths, third}
    assert (found[paths[0]].action, found[paths[0]].note) == ("relabel", "looked at: right")
    assert found[paths[1]].action == "exclude"
    assert found[third].label == NASTY
    by_name = dict(zip(look.found.shown, look.found.facts, strict=True))
    assert all(one.hash == by_name[path].digest for path, one in found.items())


def test_the_next_labels_are_a_manifest(photos: Path, tmp_path: Path, opened: Callable[[Path], Any]) -> None:
    files = [photos / "cat" / f"{number}.jpg" for number in range(3)]
    answers = [(Prediction(str(file), [("dog", 0.5), ("cat", 0.4), (NASTY, 0.1)], "dog"), file) for file in files]
    (tmp_path / "out").mkdir()
    next_sheet(answers, manifest("cat", "dog", NASTY), tmp_path / "out" / "next.html")
    page = opened(tmp_path / "out" / "next.html")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")  # the suggestion is right
    page.keyboard.press("1")
    page.keyboard.press("e")
    assert "Кошка" in page.locator(".card").nth(1).locator(".decision").inner_text()
    file = saved(page, tmp_path / "out")
    assert file.name == "next.csv"
    assert list(csv.reader(file.read_text(encoding="utf-8").splitlines())) == [
        ["path", "label"],
        ["../photos/cat/0.jpg", "dog"],
        ["../photos/cat/1.jpg", "cat"],
    ]
    assert [row.file for row in read_manifest(file)[0]] == [str(photos / "cat/0.jpg"), str(photos / "cat/1.jpg")]


def test_earlier_corrections_are_saved_with_the_new_ones(
    photos: Path, tmp_path: Path, opened: Callable[[Path], Any]
) -> None:
    look = look_at(photos)
    audit_sheet(look, tmp_path / "one.html", 100)
    page = opened(tmp_path / "one.html")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("e")
    first = saved(page, tmp_path)
    config = tmp_path / "c.yaml"
    config.write_text(
        "data: {folder: photos, corrections: corrections.csv}\nmodel: {type: layers, layers: [{type: flatten}]}\n"
    )
    excluded = read_corrections(first)[0].path
    again = look_at(config)
    assert excluded not in {again.found.shown[place] for place in again.splits}
    audit_sheet(again, tmp_path / "two.html", 100)
    page = opened(tmp_path / "two.html")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    assert next(one.path for one in read_corrections(saved(page, tmp_path))) == excluded
    assert len(read_corrections(first)) == 2
