"""The method chapter's drawings and table say what the review module computes."""

import re

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install -e .[book])")
pytest.importorskip("IPython", reason="IPython is not installed (pip install -e .[book])")

from cells import execute

from rkd import models
from rkd.report import diagrams
from rkd.review import ReviewKD, ReviewOptions, level_weights


@pytest.fixture(scope="module")
def review():
    return ReviewKD(models.build("shufflenetv1"), models.build("resnet32x4"), ReviewOptions())


def test_pyramid_shows_its_sizes_and_weights(review):
    found = execute(
        "method",
        "said = ",
        levels=review.describe(),
        options=ReviewOptions(),
        diagrams=diagrams,
        level_weights=level_weights,
    )
    assert (
        "32x32 with weight 1, 4x4 with weight 0.5, 2x2 with weight 0.25, 1x1 with weight 0.125"
        in found["said"]
    )
    assert [ax.get_title() for ax in found["axes"][0]] == ["32 × 32", "4 × 4", "2 × 2", "1 × 1"]
    pooled = found["axes"][1, 3].images[0].get_array()
    assert pooled.shape == (1, 1) and pooled.item() == pytest.approx(found["maps"][1].mean().item(), abs=1e-6)


def test_table_adds_up_to_the_parameters_of_the_module(review):
    table = diagrams.shapes_table(review.describe(), ReviewOptions()).data
    cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td>.*?</td>", table)]
    assert cells[-1] == f"{sum(p.numel() for p in review.parameters()):,}" == "4,607,366"
    assert cells[4] == "1" and cells[10] == "8, 4, 2, 1"  # HCL on the pooled vector and on the 8x8 map


def test_drawing_becomes_an_image_with_escaped_alternative_text():
    figure = diagrams.abf_block().figure
    html = diagrams.show(figure, 'a "b" < c')._repr_html_()
    assert 'alt="a &quot;b&quot; &lt; c"' in html and 'src="data:image/png;base64,iVBOR' in html
