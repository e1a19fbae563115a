"""The pictures of logits and features show what a loop over images gives, on one scale, and say how."""

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install -e .[book])")

from conftest import tiny_data

from rkd import data, models
from rkd.errors import ConfigError
from rkd.report.features import (
    Answers,
    answers,
    class_means,
    feature_figure,
    gap_figure,
    layout,
    logit_gaps,
)


def random_answers(seed, classes=4, images=24, width=5):
    draw = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    return Answers(
        draw.normal(size=(images, classes)), draw.normal(size=(images, width)) + labels[:, None], labels
    )


def test_gaps_are_those_of_a_loop_over_classes():
    teacher, student = random_answers(0), random_answers(1)
    gaps, diagonal = logit_gaps(teacher, student)
    own = []
    for c in range(4):
        for k in range(4):
            means = [
                np.mean([a.logits[i, k] for i in range(24) if a.labels[i] == c]) for a in (student, teacher)
            ]
            wanted = abs(means[0] - means[1])
            if c == k:
                own.append(wanted)
                assert np.isnan(gaps[c, k])
            else:
                assert gaps[c, k] == pytest.approx(wanted, abs=1e-12)
    assert diagonal == pytest.approx(np.mean(own), abs=1e-12)


def test_a_class_without_images_is_no_zero():
    found = random_answers(0)
    keep = found.labels != 2
    means = class_means(Answers(found.logits[keep], found.pooled[keep], found.labels[keep]))
    assert np.isnan(means[2]).all() and not np.isnan(means[[0, 1, 3]]).any()


def test_all_students_share_one_scale_of_colours():
    teacher = random_answers(0)
    near = Answers(teacher.logits + 0.01, teacher.pooled, teacher.labels)
    drawing = gap_figure(teacher, {"near": near, "far": random_answers(3)})
    limits = {image.get_clim() for ax in drawing.figure.axes for image in ax.images}
    assert len(limits) == 1 and next(iter(limits))[0] == 0
    assert "near 0.01 on average, 0.01 on the diagonal" in drawing.alt and "far" in drawing.alt


def test_answers_are_the_network_s_in_eval_mode():
    images = data.load(tiny_data())
    network = models.build("resnet8")
    found = answers(network.train(), images)
    x = (
        images.test_x[:7].permute(0, 3, 1, 2).float() / 255 - torch.tensor(images.mean).view(3, 1, 1)
    ) / torch.tensor(images.std).view(3, 1, 1)
    with torch.no_grad():
        taps = network.eval().taps(x)
    assert np.allclose(found.logits[:7], taps.logits, atol=1e-4)
    assert np.allclose(found.pooled[:7], taps.pooled, atol=1e-4) and len(found.labels) == 100


def test_layout_parts_what_is_apart_and_repeats_itself():
    pytest.importorskip("sklearn")
    draw = np.random.default_rng(0)
    features = np.concatenate([draw.normal(size=(20, 8)), draw.normal(size=(20, 8)) + 30])
    places, perplexity = layout(features)
    assert perplexity == 13 and np.array_equal(places, layout(features)[0])
    centres = places[:20].mean(0), places[20:].mean(0)
    spread = max(
        np.linalg.norm(p - c, axis=1).max() for p, c in zip((places[:20], places[20:]), centres, strict=True)
    )
    assert np.linalg.norm(centres[0] - centres[1]) > spread
    with pytest.raises(ConfigError, match="at least 5"):
        layout(features[:4])


def test_feature_figure_has_a_panel_per_network_and_says_how():
    pytest.importorskip("sklearn")
    networks = {"a": random_answers(0), "b": random_answers(1), "c": random_answers(2)}
    drawing = feature_figure(networks, ["w", "x", "y", "z"], classes=3)
    titles = [ax.get_title() for ax in drawing.figure.axes if ax.get_title()]
    assert titles == ["a", "b", "c"]
    points = sum(len(line.get_xdata()) for line in drawing.figure.axes[0].lines)
    assert (
        points == 18
        and "18 test images of 3 classes (w, x, y)" in drawing.alt
        and "perplexity 5.67" in drawing.alt
    )


def test_without_scikit_learn_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ConfigError, match="pip install scikit-learn"):
        layout(np.zeros((9, 2)))
