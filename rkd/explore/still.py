"""The live page where no kernel is behind it: a picture, and how to open the real one."""

import base64
import os

from rkd import paths
from rkd.errors import DataError
from rkd.report.book import TOKEN

ALT = (
    "The live page in a notebook: choices of networks, recipe, loss and data on the left; sizes, cost and the review "
    "path beside them; below, a progress bar, curves of accuracy and losses with and without distillation, attention "
    "maps and a table of saved runs."
)
HOW = """
<div class="rkd-explore-how">
<p><strong>This is a picture: the page itself trains networks, and for that it needs Python behind it.</strong>
Two ways to open it:</p>
<ul>
<li><strong>Colab</strong>: the rocket at the top of this page opens this notebook there. Run its cells from the top; a
GPU is used if the runtime has one.</li>
<li><strong>On your machine</strong>: from a checkout, <code>pip install -e '.[book]' jupyterlab</code>, then
<code>jupyter lab book/explore.ipynb</code>, and run all cells. With the first choices it takes about a minute on two
CPU cores and downloads nothing.</li>
</ul>
</div>
"""


class Still:
    """Shown by a notebook as HTML."""

    def __init__(self, picture: bytes) -> None:
        self._picture = picture

    def _repr_html_(self) -> str:
        data = base64.b64encode(self._picture).decode()
        return (
            f'{HOW}<img alt="{ALT}" style="max-width:100%;height:auto;border:1px solid #8884" '
            f'src="data:image/png;base64,{data}">'
        )


def in_a_book_build() -> bool:
    """Whether this notebook is being executed for the static book."""
    return bool(os.environ.get(TOKEN))


def still() -> Still:
    """The picture of the page.

    Raises:
        DataError: it is not in book/_assets.
    """
    path = paths.home() / "book" / "_assets" / "explore.png"
    if not path.is_file():
        raise DataError(f"{path} is missing; it is part of the book's sources")
    return Still(path.read_bytes())
