"""Scripts and styles of interactive pictures: beside the page in a build of the book, inside the output elsewhere.

In the book every page links `_static/interactive.js` and the styles (see _config.yml), and the script fetches plotly.js
where a page holds a plot. An output in Jupyter, on Colab or in a papermill notebook has no such files beside it, so
it carries them itself: it works wherever scripts in outputs run, and still shows its static part where they do not.
"""

import base64
import gzip
import os

from rkd import paths
from rkd.report.book import TOKEN
from rkd.report.interactive.markup import Html

PLOTLY = "plotly/plotly-cartesian.min.js"
STYLES = ("custom.css", "claims.css", "interactive.css")

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
    return bool(os.environ.get(TOKEN))


def attached(plotly: bool = False, script: bool = True) -> Html:
    """Return what an output has to bring along: nothing in a build of the book, else styles, scripts if `script`, and
    plotly.js (0.7 MB) if `plotly`."""
    if in_book():
        return Html("")
    scripts = [_text("interactive.js")] if script else []
    if plotly:
        packed = base64.b64encode(gzip.compress(_text(PLOTLY).encode(), mtime=0)).decode()
        scripts.insert(0, _UNPACK % packed)
    drawn = "".join(f"<script>{code}</script>" for code in scripts)
    return Html(f"<style>{''.join(map(_text, STYLES))}</style>{drawn}")


def _text(name: str) -> str:
    return (paths.home() / "book" / "_assets" / name).read_text(encoding="utf-8")
