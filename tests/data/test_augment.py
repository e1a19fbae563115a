"""Draws, crops and batches, against torchvision's transforms and against counting."""

import pytest
import torch
from torchvision.transforms.v2 import functional as T

from rkd.data import Batches, ImageSet, draw_epoch, evaluation_batches, normalise, stream_seed

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def image_set(n=37, size=32):
    stream = torch.Generator().manual_seed(n)
    x = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=stream)
    y, none = torch.arange(n) % 5, torch.arange(0)
    return ImageSet("own", 5, x, y, x[:4], y[:4], x[:0], none, MEAN, STD, "", tuple("abcde"))


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_batches_equal_torchvisions_crop_and_flip_to_the_pixel(mode):
    images = image_set()
    draws = draw_epoch(37, epoch=3, seed=11, padding=4, flip=True)
    assert draws.flip.any() and not draws.flip.all()
    seen = 0
    for x, y, index in Batches(images, 4, True, mode).epoch(3, 11, 8):
        assert x.is_contiguous(memory_format=torch.channels_last) and x.dtype == torch.float32
        for got, label, i in zip(x, y, index.tolist(), strict=True):
            border = "constant" if mode == "zeros" else mode
            want = T.pad(images.train_x[i].permute(2, 0, 1), [4, 4, 4, 4], padding_mode=border)
            want = T.crop(want, int(draws.dy[i]), int(draws.dx[i]), 32, 32)
            want = T.horizontal_flip(want) if draws.flip[i] else want
            reference = T.normalize(want.float() / 255, MEAN, STD)
            torch.testing.assert_close(got, reference, rtol=0, atol=2e-6)
            assert label == images.train_y[i]
            seen += 1
    assert seen == 37


def test_every_shift_and_mirroring_is_reached_and_all_are_equally_likely():
    draws = draw_epoch(81 * 2 * 400, epoch=0, seed=5, padding=4, flip=True)
    counts = torch.bincount((draws.dy * 9 + draws.dx) * 2 + draws.flip, minlength=162).double()
    assert len(counts) == 162 and counts.min() > 0
    # About normal with mean 161 and variance 2 * 161; 4.5 sigma allowed.
    assert abs(((counts - 400) ** 2 / 400).sum() - 161) < 4.5 * (2 * 161) ** 0.5


def test_epochs_depend_on_epoch_and_seed_alone():
    """An image's draw depends on no batch size; the order on no augmentation."""
    batches = Batches(image_set(), 4, True)

    def epoch(epoch, seed, size=8):
        return [torch.cat(part) for part in zip(*batches.epoch(epoch, seed, size), strict=True)]

    later = epoch(5, 1)
    for same in (epoch(5, 1), epoch(5, 1, 1), epoch(5, 1, 64)):
        assert all(torch.equal(a, b) for a, b in zip(same, later, strict=True))
    assert not torch.equal(later[0], epoch(6, 1)[0]) and not torch.equal(later[0], epoch(5, 2)[0])
    with_, without = draw_epoch(100, 4, 2, 4, True), draw_epoch(100, 4, 2, 0, False)
    assert torch.equal(with_.order, without.order)
    assert not without.flip.any() and not without.dy.any() and not without.dx.any()


def test_an_epoch_has_each_image_once_and_keeps_the_partial_batch():
    batches = Batches(image_set(), 4, True)
    sizes, seen = zip(*[(len(y), index) for _, y, index in batches.epoch(0, 0, 8)], strict=True)
    assert sizes == (8, 8, 8, 8, 5) and torch.cat(seen).tolist() != list(range(37))
    assert torch.cat(seen).sort().values.tolist() == list(range(37))
    assert [len(y) for _, y, _ in batches.epoch(0, 0, 8, drop_last=True)] == [8, 8, 8, 8]
    # But for a last batch of one, also where a run goes on; earlier versions may have stopped behind it.
    assert [batches.sizes(9, start) for start in (0, 27, 36, 37)] == [[9, 9, 9, 9], [9], [], []]
    assert batches.sizes(36) == [36] and batches.sizes(64) == [37]


def test_evaluation_batches_keep_order_lose_nothing_and_follow_the_formula():
    images, (mean, std) = image_set(10), torch.tensor((MEAN, STD), dtype=torch.float64)
    parts = list(evaluation_batches(images.train_x, images.train_y, MEAN, STD, 4))
    assert [len(y) for _, y in parts] == [4, 4, 2]
    want = ((images.train_x.double() / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(torch.cat([x for x, _ in parts]).double(), want, rtol=0, atol=2e-6)
    exact = normalise(images.train_x, MEAN, STD, torch.float64)
    torch.testing.assert_close(exact, want, rtol=0, atol=1e-13)
    assert normalise(images.train_x[:0], MEAN, STD).shape == (0, 3, 32, 32)


def test_streams_are_distinct_and_fit_in_63_bits():
    seeds = {stream_seed(s, name, e) for s in range(20) for name in ("order", "crop", "1") for e in range(50)}
    assert len(seeds) == 3000
    assert all(0 <= s < 2**63 for s in seeds) and max(seeds) > 2**62
    assert stream_seed(1, "a", 2) != stream_seed(1, "a2") != stream_seed(1, "a", "2")
