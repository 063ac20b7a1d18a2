"""The page of a run: its numbers are those of the files, it holds what it should and nothing that it should not."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from imgrec_cli.reporting import write_report
from imgrec_cli.rundir import Run

pytestmark = pytest.mark.tf


class Page(HTMLParser):
    """Text and attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.texts, self.tags = html, [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_data(self, data):
        self.texts.append(data)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def run(tiny_run, tmp_path) -> Run:
    """A copy of the run, for tests that change it."""
    shutil.copytree(tiny_run, tmp_path / tiny_run.name)
    return Run(tmp_path / tiny_run.name)


def page(run: Run, **options) -> Page:
    return Page(write_report(run, **options).read_text(encoding="utf-8"))


def test_training_ends_with_a_report(tiny_run):
    assert (tiny_run / "report.html").stat().st_size < 5_000_000


def test_every_number_is_that_of_the_files(run):
    figures = json.loads((run.evaluation_folder("test") / "metrics.json").read_text())
    text = page(run).text

    def percent(share):
        return f"{100 * share:.1f} %"

    assert f"Accuracy {percent(figures['accuracy'])} 95 % interval" in text
    low, high = figures["accuracy_interval"]
    assert f"95 % interval {100 * low:.1f} to {percent(high)}" in text
    assert f"Macro F1 {percent(figures['macro']['f1'])}" in text
    for name, of_class in figures["classes"].items():
        row = re.search(rf"{name} {of_class['support']} ([\d.]+ %) \([^)]*\) ([\d.]+ %) \([^)]*\) ([\d.]+ %)", text)
        assert row is not None, name
        assert row.groups() == tuple(percent(of_class[key]) for key in ("recall", "precision", "f1"))
    for row in figures["confusion"]["counts"]:
        assert sum(row) == 2
    links = [a for a in page(run).all("a") if a.get("href", "").startswith("#cell-")]
    filled = sum(count > 0 for row in figures["confusion"]["counts"] for count in row)
    assert len(links) == filled


def test_nothing_comes_from_elsewhere_and_every_link_leads_somewhere(run):
    found = page(run)
    assert not found.all("script")
    ids = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    assert len(ids) == sum("id" in attributes for _, attributes in found.tags)
    for attributes in found.all("a"):
        assert attributes["href"].removeprefix("#") in ids
    for attributes in found.all("img"):
        assert attributes["src"].startswith("data:image/jpeg;base64,")
        assert attributes["alt"]
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", found.html)
    urls = set(re.findall(r"https?://[^\s\"'<]+", found.html))
    assert all(url.startswith("http://www.w3.org/") for url in urls), urls


def test_every_plot_is_told_in_words(run):
    found = page(run)
    plots = [a for a in found.all("div") if a.get("role") == "img"]
    assert len(plots) == found.html.count("<svg ")
    assert len(plots) >= 8
    assert all(len(plot["aria-label"]) > 30 for plot in plots)


def test_no_absolute_path_is_in_it(run, tiny_config):
    record = run.record
    secret = str(tiny_config.parent / "shapes")
    run.update_record(overrides=[f"data.folder={secret}", "model.weights=C:\\Users\\Jane Doe\\w.h5"])
    run.config_file.write_text(
        f"data: {{folder: {secret}}}\nmodel: {{weights: '/home/Jane Doe/net works/w.h5'}}\n", encoding="utf-8"
    )
    found = page(run)
    for private in (str(tiny_config.parent), str(Path.home()) + "/", "Jane Doe", str(run.folder)):
        assert private not in found.html, private
    assert "…/shapes" in found.text
    assert "…/w.h5" in found.text
    assert record["data"]["fingerprint"] in found.text


def test_what_may_be_wrong_with_the_images_is_in_the_data_section(tiny_config, tmp_path):
    from imgrec_cli.api import train

    shutil.copytree(tiny_config.parent / "shapes", tmp_path / "shapes")
    shutil.copy(tmp_path / "shapes" / "circle" / "03.png", tmp_path / "shapes" / "cross" / "again.png")
    (tmp_path / "shapes" / "square" / "empty.png").touch()
    shutil.copy(tiny_config, tmp_path / "tiny.yaml")
    found = page(train(tmp_path / "tiny.yaml", ["train.epochs=1"], runs=tmp_path / "runs"))
    text = found.text.split("images by class and split")[1].split("The network")[0]
    doubled = re.search(
        r"warning: 1 picture stands under two labels What to do: decide on .+?copy\. (\S+ and \S+)", text
    )
    assert doubled is not None
    assert set(doubled[1].split(" and ")) == {"circle/03.png", "cross/again.png"}
    assert re.search(r"warning: 1 file without a single byte What to do: replace them.*? square/empty\.png", text)
    assert "found nothing wrong" not in text
    assert str(tmp_path) not in found.html


def test_nothing_wrong_is_said_and_a_run_that_kept_no_audit_says_nothing_of_it(run):
    run.audit_file.write_text("[]")
    assert "The audit of the images found nothing wrong." in page(run).text
    run.audit_file.unlink()
    text = page(run).text
    assert "audit" not in text
    assert "What may be wrong with the images" not in text


def test_the_audit_shows_no_folder_of_the_user_and_says_how_many_it_leaves_out(run):
    outside = [["../../home/Jane Doe/scans/a.png"], ["/home/Jane Doe/scans/b.png"], ["circle/<b>.png"]]
    finding = {"kind": "tiny", "level": "warning", "message": "1,234 images are far smaller", "fix": "look"}
    run.audit_file.write_text(json.dumps([{**finding, "images": 1234, "groups": 1234, "examples": outside}]))
    found = page(run)
    assert "1,234 images are far smaller What to do: look. …/scans/a.png; …/b.png; circle/<b>.png; and 1,231 more" in (
        found.text
    )
    assert "Jane" not in found.html


def test_pictures_hold_no_exif(run, tiny_config, tmp_path):
    lines = run.examples_file.read_text(encoding="utf-8").splitlines()
    test = next(line.split(",") for line in lines if line.startswith("test,"))
    exif = Image.Exif()
    exif[0x010E] = "taken by Jane Doe"
    with Image.open(test[3]) as picture:
        picture.convert("L").save(tmp_path / "x.jpg", exif=exif)
    run.examples_file.write_text("\n".join(lines).replace(test[3], str(tmp_path / "x.jpg")) + "\n", encoding="utf-8")
    pictures = [base64.b64decode(a["src"].split(",")[1]) for a in page(run).all("img")]
    assert pictures
    for content in pictures:
        assert b"Jane" not in content
        assert not Image.open(BytesIO(content)).getexif()


def test_it_says_that_it_holds_pictures_and_can_do_without(run, tmp_path):
    assert "This page embeds pictures of the data set" in page(run).text
    without = page(run, file=tmp_path / "without.html", images=False)
    assert "written without pictures" in without.text
    assert not without.all("img")
    assert "base64" not in without.html


def test_images_that_are_gone_are_said_and_nothing_fails(run):
    text = run.examples_file.read_text(encoding="utf-8")
    run.examples_file.write_text(re.sub(r"/shapes/", "/gone/", text), encoding="utf-8")
    found = page(run)
    assert "pictures could not be read again" in found.text
    assert "not shown" in found.text


def test_names_are_text_and_not_markup(run):
    predictions = run.evaluation_folder("test") / "predictions.csv"
    predictions.write_text(predictions.read_text(encoding="utf-8").replace("circle/", "<b>&/"), encoding="utf-8")
    found = page(run)
    assert not found.all("b")
    assert "<b>&/" in found.text


def test_a_run_that_was_not_judged_is_said(imgrec, run):
    shutil.rmtree(run.evaluation_folder("test"))
    done = imgrec("report", run.folder)
    assert done.code == 2
    assert "not judged on test yet" in done.err
    assert f"imgrec evaluate -m {run.folder} --split test" in done.err


def test_the_command_names_file_and_size(imgrec, run, tmp_path):
    done = imgrec("report", run.folder, "-o", tmp_path / "page.html", "--no-images")
    assert done.code == 0
    assert done.out.startswith(f"wrote {tmp_path / 'page.html'}, ")
    assert "pictures" not in done.out


def test_the_card_is_written_from_the_figures(tiny_run):
    import yaml

    text = (tiny_run / "bundle" / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    values = yaml.safe_load(head)
    figures = json.loads((tiny_run / "evaluation" / "test" / "metrics.json").read_text())
    found = {metric["type"]: metric["value"] for metric in values["model-index"][0]["results"][0]["metrics"]}
    assert found == {
        "accuracy": pytest.approx(figures["accuracy"], abs=1e-4),
        "f1": pytest.approx(figures["macro"]["f1"], abs=1e-4),
    }
    assert values["pipeline_tag"] == "image-classification"
    for name in ("circle", "cross", "square"):
        assert f"| {name} |" in body
    assert "24 train, 6 validation, 6 test images" in body
