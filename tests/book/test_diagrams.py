"""The method chapter's drawings and table say what the review module computes."""

import re

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install -e .[book])")
pytest.importorskip("IPython", reason="IPython is not installed (pip install -e .[book])")

from rkd import models
from rkd.report import diagrams
from rkd.review import ReviewKD, ReviewOptions


@pytest.fixture(scope="module")
def review():
    return ReviewKD(models.build("shufflenetv1"), models.build("resnet32x4"), ReviewOptions())


def words(drawing: diagrams.Drawing) -> list[str]:
    (axes,) = drawing.figure.axes
    return [text.get_text() for text in axes.texts]


def test_pyramid_shows_its_sizes_and_weights():
    drawing = diagrams.hcl_pyramid(8, [(8, 1.0), (4, 0.5)])
    assert {"8 × 8", "4 × 4", "weight 1", "weight 0.5"} <= set(words(drawing))
    assert "8x8 with weight 1, 4x4 with weight 0.5" in drawing.alt


def test_table_adds_up_to_the_parameters_of_the_module(review):
    table = diagrams.shapes_table(review.describe(), ReviewOptions()).data
    cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td>.*?</td>", table)]
    assert cells[-1] == f"{sum(p.numel() for p in review.parameters()):,}" == "4,607,366"
    assert cells[4] == "1" and cells[10] == "8, 4, 2, 1"  # HCL on the pooled vector and on the 8x8 map


def test_drawing_becomes_an_image_with_escaped_alternative_text():
    figure = diagrams.abf_block().figure
    html = diagrams.show(figure, 'a "b" < c')._repr_html_()
    assert 'alt="a &quot;b&quot; &lt; c"' in html and 'src="data:image/png;base64,iVBOR' in html
