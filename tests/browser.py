"""A headless Chromium for tests that look at pages."""

import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest


def chromium(profile: Path, width: int = 1280, height: int = 1000):
    """A browser with its logs of requests ("performance") and of the console ("browser"); skips the test, by name,
    where there is none.

    Args:
        profile: empty folder for its files.
        width, height: of the window, in CSS pixels.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not found or not driver:
        pytest.skip(
            "Chromium and chromedriver are needed to look at pages (Debian: chromium, chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--window-size={width},{height}", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    # A proxy of this machine is not for pages it serves itself.
    os.environ["no_proxy"] = ",".join(filter(None, (os.environ.get("no_proxy"), "localhost,127.0.0.1")))
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def wait(browser, script, *arguments, seconds=30):
    """Until an expression in JavaScript gives something true; returns it."""
    deadline = time.monotonic() + seconds
    while not (found := browser.execute_script(f"return {script}", *arguments)):
        assert time.monotonic() < deadline, f"not within {seconds} s: {script}"
        time.sleep(0.05)
    return found


@contextmanager
def window(browser, width, height=900):
    """A window of so many CSS pixels, of a phone where it is narrow."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
