"""Pages on paper: a page of wide tables, pictures and code, printed by Chromium."""

import base64
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from browser import chromium

pytest.importorskip("jupyter_book", reason="jupyter-book is not installed (pip install -e .[book])")
pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PAPERS = {"A4": (21.0, 29.7), "Letter": (21.59, 27.94)}  # cm
MARGIN = 1.4  # cm, of print.css
CSS_PIXELS = 96 / 2.54  # per cm

HEADS = (
    "line",
    "seed",
    "run",
    "status",
    "last %",
    "device",
    "threads",
    "train s",
    "images/s",
    "commit",
    "ended",
)
ROW = ("ResNet-8x4 ← ResNet-32x4: ResNet-8x4 with ReviewKD", "0", "<code>17638368f515</code>",
       '<span class="rkd-badge rkd-finished">finished</span>', "75.09", "NVIDIA H200 NVL", "16", "1234.5", "45678",
       "<code>3ad023990012+</code>", "2026-11-21T14:39:05Z")  # fmt: skip


def table(kind: str, heads: tuple[str, ...], row: tuple[str, ...], rows: int) -> str:
    head = "".join(f"<th>{text}</th>" for text in heads)
    line = f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{text}</td>" for text in row[1:]) + "</tr>"
    return (
        f'<table class="rkd-table {kind}"><thead><tr>{head}</tr></thead><tbody>{line * rows}</tbody></table>'
    )


NUMBER = '<span class="rkd-number">75.09 ± 0.25</span> <span class="rkd-n">n = 5</span>'
RESULTS = table(
    "rkd-results",
    ("", "published", "profile paper: last epoch", "best epoch", "recorded: paper profile", "recorded: mini profile"),
    ("RM + RLF + ABF + HCL", "71.79 [Re] paper", NUMBER, NUMBER, NUMBER, NUMBER),
    8,
)  # fmt: skip
LIVE = '<div class="rkd-live">moving picture</div><div class="rkd-fallback" style="display: none">still picture</div>'
FOLDED = (
    "<details class='hide'><summary>Code</summary>x</details><details><summary>Words</summary>y</details>"
)
WIDE = "<svg width='2400' height='300' style='width: 2400px'><rect width='2400' height='300'/></svg>"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A site of one page, in the book's style."""
    folder = tmp_path_factory.mktemp("print")
    (folder / "book" / "_assets").mkdir(parents=True)
    for name in ("custom.css", "print.css"):
        shutil.copy(ROOT / "book" / "_assets" / name, folder / "book" / "_assets")
    outputs = [RESULTS, LIVE, FOLDED, WIDE, table("rkd-provenance", HEADS, ROW, 60)]
    new = nbformat.v4
    cells = [new.new_markdown_cell("# Table 3\n\nOpening [words](x.md).")]
    source = "page.table(" + ", ".join(f"argument_{n}" for n in range(30)) + ")"
    cells += [
        new.new_code_cell(source, outputs=[new.new_output("display_data", {"text/html": html})])
        for html in outputs
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(new.new_notebook(cells=cells, metadata=kernel), folder / "book" / "index.ipynb")
    (folder / "book" / "x.md").write_text("# Another\n\nWords.\n")
    (folder / "book" / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters: [{file: x}]\n")
    (folder / "_config.yml").write_text(
        "title: tiny\nexecute: {execute_notebooks: 'off'}\nsphinx:\n  config:\n"
        "    html_static_path: [_assets]\n    html_css_files: [custom.css, print.css]\n"
    )
    command = ["-c", "from jupyter_book.cli.main import main; main()", "build", str(folder / "book")]
    subprocess.run(
        [sys.executable, *command, "--config", str(folder / "_config.yml"), "--path-output", str(folder)],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def printed(site, tmp_path_factory):
    """A browser that shows the page as on paper."""
    driver = chromium(tmp_path_factory.mktemp("chromium"))
    driver.get((site / "index.html").as_uri())
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    yield driver
    driver.quit()


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_the_paper(printed, paper, theme):
    width = round((PAPERS[paper][0] - 2 * MARGIN) * CSS_PIXELS)
    printed.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
    printed.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    wide = printed.execute_script(
        "return [...document.querySelectorAll('article, article *')].filter(e => {"
        "  const box = e.getBoundingClientRect();"
        "  return box.width && (box.right > innerWidth + 1 || box.left < -1);"
        "}).filter(e => !e.closest('svg') || e.tagName === 'svg').map(e => e.outerHTML.slice(0, 80))"
    )
    assert not wide, wide
    assert printed.execute_script("return document.documentElement.scrollWidth") <= width
    # No box of its own cuts or scrolls what it holds.
    cut = printed.execute_script(
        "return [...document.querySelectorAll('article .cell_output *, article pre')]"
        "  .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1 && !e.closest('svg'))"
        "  .map(e => e.outerHTML.slice(0, 80))"
    )
    assert not cut, cut
    numbers = "return [...document.querySelectorAll('.rkd-number')].map(e => e.getClientRects().length)"
    assert set(printed.execute_script(numbers)) == {1}  # no number is broken between lines


def test_only_the_text_is_printed_and_it_is_dark_on_white(printed):
    printed.execute_script("document.documentElement.dataset.theme = 'dark'")
    shown = (
        "return [...document.querySelectorAll(arguments[0])].filter(e => e.getClientRects().length).length"
    )
    assert printed.execute_script(shown, "article table") == 2 and printed.execute_script(shown, "h1") == 1
    screen_only = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header, .bd-header-article, footer, button"
    assert printed.execute_script(shown, screen_only) == 0
    assert printed.execute_script(shown, ".headerlink, .prev-next-area, .rkd-live") == 0
    assert printed.execute_script(shown, ".rkd-fallback") == 1
    assert (
        printed.execute_script(shown, "details.hide") == 0
    )  # folded code stays out, folded words say what they are
    assert printed.execute_script(shown, "details:not(.hide) > summary") == 1
    colours = printed.execute_script(
        "return ['article p', 'article h1', 'article td', '.highlight span', '.rkd-badge']"
        "  .map(s => getComputedStyle(document.querySelector(s)).color)"
    )
    assert all(_luminance(colour) < 0.2 for colour in colours), colours
    back = printed.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert _luminance(back) == 1.0


def test_pdf_has_few_pages_and_all_rows(printed):
    paper = {"paperWidth": PAPERS["A4"][0] / 2.54, "paperHeight": PAPERS["A4"][1] / 2.54}
    made = printed.execute_cdp_cmd("Page.printToPDF", {**paper, "preferCSSPageSize": False})
    pages = len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(made["data"])))
    assert 2 <= pages <= 6  # 60 rows of two lines and the rest


def test_command_prints_files(site, tmp_path):
    from rkd.errors import ConfigError
    from rkd.report.book.pdf import print_pages

    said: list[str] = []
    (made,) = print_pages(site, tmp_path / "pdf", ["x"], said.append)
    assert made.read_bytes().startswith(b"%PDF") and said[0].startswith("x.pdf ")
    with pytest.raises(ConfigError, match=r"page y is not in .*; allowed: index, x"):
        print_pages(site, tmp_path / "pdf", ["y"])
    with pytest.raises(ConfigError, match="no built book"):
        print_pages(tmp_path, tmp_path / "pdf")


def _luminance(colour: str) -> float:
    """Of a CSS colour, 0 to 1."""
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    scale = 1.0 if colour.startswith("color(") else 255.0
    linear = [
        (p / scale / 12.92 if p / scale <= 0.04045 else ((p / scale + 0.055) / 1.055) ** 2.4) for p in parts
    ]
    return round(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2], 4)
