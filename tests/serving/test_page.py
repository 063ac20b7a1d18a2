"""The page in a browser: an image in, the right class and its explanation out, on the width of a phone."""

import shutil

import pytest

from imgrec_cli import Classifier

playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.tf, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


@pytest.fixture
def page():
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser.new_page(viewport={"width": 375, "height": 800})
        browser.close()


def drop(page, name, data):
    script = "([bytes, name]) => {const d = new DataTransfer();"
    script += "d.items.add(new File([new Uint8Array(bytes)], name)); return d}"
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(script, [list(data), name])})


def test_a_dropped_image_is_classified_and_explained(serve, page, images, tiny_run):
    served = serve()
    faults, foreign = [], []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on(
        "request", lambda request: foreign.append(request.url) if ":" + str(served.port) not in request.url else None
    )
    page.goto(f"http://127.0.0.1:{served.port}/")
    wanted = Classifier.load(tiny_run).predict(images[1])
    drop(page, "cross.png", images[1])
    playwright.expect(page.locator("#classes li")).to_have_count(3)
    shown = page.locator("#classes li").first.inner_text().split()
    assert shown[0] == wanted.label
    assert float(shown[1]) == pytest.approx(100 * wanted.confidence, abs=0.06)
    page.click("#explain")
    playwright.expect(page.locator("#explanation")).to_contain_text(f"from the answer {wanted.label}", timeout=30_000)
    assert page.locator("#heat").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert not faults
    assert not [address for address in foreign if not address.startswith(("data:", "blob:"))]


def test_a_file_that_is_no_image_is_told_and_the_keyboard_reaches_everything(serve, page, images):
    served = serve(IMGREC_SERVE_TOKEN="secret")
    page.goto(f"http://127.0.0.1:{served.port}/")
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert reached == ["file", "camera", "A"]
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": images[0]})
    playwright.expect(page.locator("#token")).to_be_focused()
    page.keyboard.type("secret")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#classes li")).to_have_count(3)
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no image"})
    playwright.expect(page.locator("#message")).to_contain_text("a.txt: not a JPEG")
