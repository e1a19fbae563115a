"""The method chapter's drawings and table say what the review module computes."""

import pytest
from cells import execute

from rkd.report import diagrams


@pytest.fixture(scope="module")
def page():
    pair = {"teacher": "resnet32x4", "student": "shufflenetv1"}
    return execute("method", "review = ReviewKD", "boxes = {}", "size = levels", "shapes = [", **pair)


def test_block_draws_every_pass_from_box_to_box(page):
    names = [name for pair in page["passes"].split(",") for name in pair.split()]
    assert set(names) == set(page["blocks"]) == set(page["boxes"])


def test_pyramid_shows_its_sizes_and_weights(page):
    said = "32x32 with weight 1, 4x4 with weight 0.5, 2x2 with weight 0.25, 1x1 with weight 0.125"
    assert said in page["said"]
    assert [ax.get_title() for ax in page["axes"][0]] == ["32 × 32", "4 × 4", "2 × 2", "1 × 1"]
    pooled = page["axes"][1, 3].images[0].get_array()
    assert pooled.shape == (1, 1) and pooled.item() == pytest.approx(page["maps"][1].mean().item(), abs=1e-6)


def test_table_adds_up_to_the_parameters_of_the_module(page):
    assert page["total"] == sum(p.numel() for p in page["review"].parameters()) == 4_607_366
    compared = [row["HCL compares at"] for row in page["shapes"]]
    assert compared[0] == "1" and compared[1] == "8, 4, 2, 1"  # on the pooled vector and on the 8x8 map


def test_a_drawing_is_an_image_with_escaped_words_which_a_dark_page_turns_round_if_it_is_a_chart():
    axes = diagrams.canvas(1, 1, (0, 1), (0, 1))
    html = diagrams.show(axes.figure, 'a "b" < c')._repr_html_()
    assert 'alt="a &quot;b&quot; &lt; c"' in html and 'src="data:image/png;base64,iVBOR' in html
    assert 'class="rkd-chart"' in html
    axes.imshow([[0, 1]])
    assert "class" not in diagrams.show(axes.figure, "")._repr_html_()
