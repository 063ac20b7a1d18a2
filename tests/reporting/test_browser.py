"""The page in a browser: it runs nothing, asks for nothing and fits a phone. Skipped without Playwright and Chromium.

`AXE` names a file `axe.min.js` of axe-core, for the check of accessibility.
"""

import os
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.tf
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_the_page_is_quiet_and_fits(browser, tiny_run, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = (tiny_run / "report.html").as_uri()
    page.goto(address)
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    link = page.locator(".matrix a").first
    link.click()
    assert page.locator(".cell:target").is_visible()
    if "AXE" in os.environ:
        page.evaluate(Path(os.environ["AXE"]).read_text(encoding="utf-8"))
        violations = page.evaluate("axe.run()")["violations"]
        assert [v["id"] for v in violations if v["impact"] in ("serious", "critical")] == []
