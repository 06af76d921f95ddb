"""A browser, and one open page in it."""

import os
import shutil
from contextlib import contextmanager

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no browser driver: pip install playwright"
)

SLOW_MS = 60_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium")


def installed_browser():
    """The system's browser, or the one that `playwright install chromium` has fetched."""
    named = os.environ.get("PROMPTSEG_BROWSER")
    found = [path for path in map(shutil.which, (named,) if named else BROWSERS) if path]
    return found[0] if found else None


@contextmanager
def launched_browser():
    """A browser without a window; skips where there is none."""
    system = installed_browser()
    with playwright.sync_playwright() as driver:
        options = {"args": ["--no-sandbox", "--disable-dev-shm-usage"]}
        if system is None and not os.path.exists(driver.chromium.executable_path):
            pytest.skip("no browser: apt-get install chromium, or name one in $PROMPTSEG_BROWSER")
        if system:
            options["executable_path"] = system
        launched = driver.chromium.launch(**options)
        yield launched
        launched.close()


class Tab:
    """One open page."""

    def __init__(self, page, address):
        self.page, self.asked = page, []
        page.set_default_timeout(SLOW_MS)
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("#ps-targets button")

    def version(self):
        return self.page.locator(".pv-stage").get_attribute("data-version")

    def after(self, act):
        """Do something and wait for the new picture."""
        before = self.version()
        act()
        self.page.wait_for_function(
            "before => document.querySelector('.pv-stage').dataset.version !== before", arg=before
        )

    def sample(self):
        self.page.click("#ps-sample")
        self.page.wait_for_selector(".pv-stage[data-index]:not([hidden])")

    def place(self, voxel):
        """Pixel of the page over (i, j) of an axial slice: the tubes are stored in RAS order."""
        area = self.page.locator(".pv-stage").bounding_box()
        x, y = 1 - (voxel[0] + 0.5) / 40, 1 - (voxel[1] + 0.5) / 48
        return area["x"] + x * area["width"], area["y"] + y * area["height"]

    def tool(self, name):
        self.page.locator(f"#ps-tool input[value={name}]").check(force=True)

    def click(self, voxel, **options):
        self.after(lambda: self.page.mouse.click(*self.place(voxel), **options))

    def drag(self, first, last):
        def act():
            self.page.mouse.move(*self.place(first))
            self.page.mouse.down()
            self.page.mouse.move(*self.place(last), steps=6)
            self.page.mouse.up()

        self.after(act)

    def press(self, name):
        self.after(lambda: self.page.click(f"#ps-{name}"))

    def status(self):
        return self.page.inner_text("#ps-status")

    def download(self, name, folder):
        with self.page.expect_download() as caught:
            self.page.click(f"#ps-{name}")
        path = folder / caught.value.suggested_filename
        caught.value.save_as(path)
        return path
