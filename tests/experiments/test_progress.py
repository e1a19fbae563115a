import pytest

from rkd.experiments.progress import Progress


@pytest.mark.parametrize(("epoch", "start"), [(0, 0), (2, 60)])
def test_rate_counts_what_this_process_trained_on(epoch, start):
    progress = Progress()
    progress.begin("a run", 4, 100)
    progress.batch(epoch, start, 100)
    progress._bar.start_t -= 10
    progress.batch(epoch, start + 20, 100)
    left = (400 - 100 * epoch - start - 20) // 2
    assert str(progress._bar) == f"2.00 images/s, {left // 60:02d}:{left % 60:02d} left"
