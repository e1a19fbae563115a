"""A headless Chromium for tests that look at pages."""

import os
import shutil
from pathlib import Path

import pytest


def chromium(profile: Path, width: int = 1280, height: int = 1000):
    """A browser with its logs of requests ("performance") and of the console ("browser"); skips the test, by name,
    where there is none.

    Args:
        profile: empty folder for its files.
        width, height: of the window, in CSS pixels.
    """
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed (pip install -e .[test])"
    )
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not found or not driver:
        pytest.skip(
            "Chromium and chromedriver are needed to look at pages (Debian: chromium, chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--window-size={width},{height}",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    # A proxy of this machine is not for pages it serves itself.
    os.environ["no_proxy"] = ",".join(filter(None, (os.environ.get("no_proxy"), "localhost,127.0.0.1")))
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
