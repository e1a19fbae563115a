"""The built pages as PDF, one file each, printed by Chromium:

python -m rkd.report.book.pdf                       _build/html to _build/pdf
python -m rkd.report.book.pdf SITE FOLDER [PAGE ...]
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rkd import paths
from rkd.errors import ConfigError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--allow-file-access-from-files", "--no-pdf-header-footer"),
    "--virtual-time-budget=20000",  # ms of the page's own clock, for formulas, pictures and widgets to settle
)
OF_SPHINX = {"genindex", "search", "py-modindex"}
TIMEOUT_S = 180  # of one page


def print_pages(site: Path, target: Path, pages: Sequence[str] = ()) -> list[Path]:
    """Print pages of a built site, named without suffix, or all that hold text of the book, with a line for each.

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
    made = [(target / f"{name}.pdf").resolve() for name in pages or present]
    with tempfile.TemporaryDirectory() as profile:
        for path in made:
            path.unlink(missing_ok=True)
            address = (site / f"{path.stem}.html").resolve().as_uri()
            command = [browser, *FLAGS, f"--user-data-dir={profile}", f"--print-to-pdf={path}", address]
            try:
                subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
            except subprocess.TimeoutExpired:
                raise ConfigError(f"{path.stem}.html was not printed within {TIMEOUT_S} s") from None
            if not path.is_file():
                raise ConfigError(f"{path.stem}.html was not printed by {browser}")
            print(f"{path.name}  {path.stat().st_size // 1024} kB")
    return made


if __name__ == "__main__":
    try:
        if len(sys.argv) == 2:
            raise ConfigError("give two folders, SITE and FOLDER, or none")
        site, target = sys.argv[1:3] or (paths.build_folder() / "html", paths.build_folder() / "pdf")
        print_pages(Path(site), Path(target), sys.argv[3:])
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
