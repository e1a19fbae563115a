"""The built pages as PDF, one file each, printed by Chromium:

python -m rkd.report.book.pdf                       _build/html to _build/pdf
python -m rkd.report.book.pdf SITE FOLDER [PAGE ...]
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rkd.errors import ConfigError
from rkd.report.book.html import OF_SPHINX

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--allow-file-access-from-files", "--no-pdf-header-footer"),
    "--virtual-time-budget=20000",  # ms of the page's own clock, for formulas, pictures and widgets to settle
)
TIMEOUT_S = 180  # of one page


def print_pages(
    site: Path, target: Path, pages: Sequence[str] = (), echo: Callable[[str], object] = print
) -> list[Path]:
    """Print pages of a built site.

    Args:
        site: folder of the site.
        target: folder of the PDF files.
        pages: names without ending; empty: all that hold text of the book.
        echo: receives one line per page.

    Raises:
        ConfigError: no site, no such page, no Chromium, or a page that it could not print.
    """
    present = sorted(path.stem for path in site.glob("*.html") if path.stem not in OF_SPHINX)
    if not present:
        raise ConfigError(f"no built book lies in {site}; build it with `rkd book`")
    for name in pages:
        if name not in present:
            raise ConfigError(f"page {name} is not in {site}; allowed: {', '.join(present)}")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ConfigError(f"Chromium is needed to print; none of {', '.join(BROWSERS)} was found")
    target.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as profile:
        for name in pages or present:
            path = (target / f"{name}.pdf").resolve()
            path.unlink(missing_ok=True)
            address = (site / f"{name}.html").resolve().as_uri()
            command = [browser, *FLAGS, f"--user-data-dir={profile}", f"--print-to-pdf={path}", address]
            try:
                subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            except subprocess.TimeoutExpired:
                raise ConfigError(f"{name}.html was not printed within {TIMEOUT_S} s") from None
            if not path.is_file():
                raise ConfigError(f"{name}.html was not printed by {browser}")
            echo(f"{path.name}  {path.stat().st_size // 1024} kB")
            made.append(path)
    return made


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    from rkd import paths

    try:
        if len(arguments) == 1:
            raise ConfigError("give two folders, SITE and FOLDER, or none")
        site, target = map(Path, arguments[:2] or (paths.build() / "html", paths.build() / "pdf"))
        print_pages(site, target, arguments[2:])
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
