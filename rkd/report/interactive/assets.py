"""Scripts and styles of interactive pictures: beside the page in a build of the book, inside the output elsewhere.

In the book every page links `_static/interactive.js` and `.css` (see _config.yml), and the script fetches plotly.js
where a page holds a plot. An output in Jupyter, on Colab or in a papermill notebook has no such neighbours, so it
carries them itself: it shows wherever scripts of outputs run, and still shows its fallback image where they do not.
"""

import base64
import functools
import gzip
import os

from rkd import paths

BUILDING = "RKD_BOOK_TOKEN"  # set in the environment of a chapter that is executed for the book
PLOTLY = "plotly/plotly-cartesian.min.js"

# The script element, unlike eval, needs no more permission than this output itself; the wrapper hides AMD and CommonJS.
_UNPACK = """window.rkdPlotly ||= (async () => {
  const bytes = Uint8Array.from(atob("%s"), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = `((define, module, exports) => {${await new Response(stream).text()}\n})()`;
  document.head.append(script);
  return window.Plotly;
})();"""


def in_book() -> bool:
    """Whether this process executes a chapter for the book."""
    return bool(os.environ.get(BUILDING))


def attached(plotly: bool) -> str:
    """What an output has to bring along: nothing in a build of the book, else styles and scripts as HTML.

    Args:
        plotly: whether plotly.js is among them (0.7 MB).
    """
    if in_book():
        return ""
    library = f"<script>{_packed_plotly()}</script>" if plotly else ""
    return f"<style>{_text('interactive.css')}</style>{library}<script>{_text('interactive.js')}</script>"


def _text(name: str) -> str:
    return (paths.home() / "book" / "_assets" / name).read_text(encoding="utf-8")


@functools.cache
def _packed_plotly() -> str:
    return _UNPACK % base64.b64encode(gzip.compress(_text(PLOTLY).encode(), mtime=0)).decode()
