"""A pack, unpacked elsewhere, trains there with nothing but the package's own dependencies, is killed, and goes on."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from sweeps import outcomes

from rkd.cli import main
from rkd.cli.pack import CHECKSUMS
from rkd.experiments import workspace
from rkd.records import Store, transfer
from rkd.records.provenance import code_state

CHAPTER, KILLS = "table5", 2
# What a machine with a GPU may lack: all that pyproject.toml names beyond the dependencies of the package itself.
EXTRAS = {
    "IPython", "ipywidgets", "ipykernel", "itables", "jupyter_book", "matplotlib", "myst_nb", "nbclient", "nbformat",
    "papermill", "plotly", "pytest", "seaborn", "selenium", "sklearn", "sphinx", "tensorboard",
}  # fmt: skip
# A checkpoint after every batch, so that kills meet runs at all stages.
ALONE = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        found = name.partition(".")[0] in {sorted(EXTRAS)!r}
        return None if found else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from rkd.experiments import group
from rkd.records.transfer import exporting
group.SAVE_WITHIN_EPOCH, group.SAVING_SHARE = 0.0, 1e9
exporting.LOOK_SECONDS = exporting.LEAST_SECONDS = 0.05
from rkd.cli import main
sys.exit(main(sys.argv[1:]))
"""
SMALL = "--teacher resnet8 --student resnet8 --train-images 100 --test-images 50 --batch-size 25 --epochs 2"
SMALL += " --seeds [0] --device cpu --precision fp32"
PACK = f"pack --profile smoke --chapters {CHAPTER} --max-part 400kB --out"


@pytest.fixture(scope="module", autouse=True)
def nothing_recorded():
    """Packs are made of a project in which nothing is recorded, whatever other tests train meanwhile."""
    folder = ROOT / "_build" / "of-no-run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "store_for", lambda *profile: Store(folder / "records", folder / "work"))
        yield


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "pack"
    assert main([*PACK.split(), str(folder)]) == 0
    return folder


def unpack(pack, place):
    place.mkdir()
    checked = subprocess.run(["sha256sum", "--quiet", "-c", CHECKSUMS], cwd=pack, check=False)
    assert checked.returncode == 0
    subprocess.run(f"cat {pack}/part-* | tar -x -C {place}", shell=True, check=True)
    return place


def sweep(place, more=""):
    """Start a sweep in an unpacked folder, with that alone on the path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RKD_", "PYTHON"))}
    environment |= {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    call = f"sweep params/smoke.yaml --chapters {CHAPTER} --out carry --max-files 8 {SMALL} {more}".split()
    with open(place / "output", "a") as output:
        return subprocess.Popen(
            [sys.executable, "-c", ALONE, *call], cwd=place, env=environment, stdout=output, stderr=output
        )


def store_in(place):
    return Store(place / "_build" / "smoke" / "records", place / "_build" / "smoke" / "work")


@pytest.fixture(scope="module")
def undisturbed(pack, tmp_path_factory):
    """What a sweep that nothing disturbs leaves, checked, measured and exported."""
    place = unpack(pack, tmp_path_factory.mktemp("undisturbed") / "there")
    assert sweep(place, "--order verdicts --check").wait(900) == 0, (place / "output").read_text()
    return place


def test_the_same_content_gives_the_same_bytes_and_damage_is_named(pack, tmp_path, rkd, done):
    again = tmp_path / "again"
    assert done(f"{PACK} {again}") and done(f"{PACK} {again}"), "a pack may replace one"
    files = {path.name: path.read_bytes() for path in pack.iterdir()}
    assert files == {path.name: path.read_bytes() for path in again.iterdir()} and len(files) > 3
    assert all(len(data) <= 400_000 for data in files.values())
    victim = sorted(again.glob("part-*"))[1]
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    checked = subprocess.run(
        ["sha256sum", "--quiet", "-c", CHECKSUMS], cwd=again, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 1 and f"{victim.name}: FAILED" in checked.stdout
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    status, _, err = rkd(f"{PACK} {tmp_path / 'own'}")
    assert status == 2 and "holds what is no part of a pack (thesis.txt)" in err


def test_an_unpacked_copy_trains_and_its_export_comes_home(undisturbed, tmp_path):
    text, store = (undisturbed / "output").read_text(), store_in(undisturbed)
    assert "no teacher    fp64" in text and "reviewkd      fp64" in text and "nothing to capture here" in text
    assert "4 runs are recorded" in text and len(store.ids()) == 4
    made = [store.load(run).provenance for run in store.ids()]
    code = code_state()
    assert {(p["commit"], p["changed"]) for p in made} == {(code["commit"], code["changed"])}
    carry = undisturbed / "carry"
    assert len(list(carry.iterdir())) <= 8
    home = Store(tmp_path / "records", tmp_path / "work")
    assert {outcome.state for outcome in transfer.merge(home, carry)} == {"added"}
    assert outcomes(home.records) == outcomes(store.records)
    (teacher,) = [run for run in store.ids() if store.load(run).config.teacher is None]
    assert (home.folder(teacher) / "best.pt").exists(), "students will be trained here"


@pytest.mark.slow
def test_killed_and_resumed_it_leaves_the_records_of_an_undisturbed_one(pack, undisturbed, tmp_path):
    """Killed at random moments; all that was recorded is exported at any time."""
    place, draw, ends = unpack(pack, tmp_path / "killed"), random.Random(1), []
    store, carry = store_in(place), place / "carry"

    def times():
        return [path.stat().st_mtime_ns for path in sorted(store.work.glob("*/checkpoint.pt"))]

    for kill in range(KILLS):
        process, saves, seen = sweep(place), draw.randint(1, 9), times()
        while saves and process.poll() is None:  # a moment told by what was saved, at any machine's speed
            saves -= (now := times()) != seen
            seen = now
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        ends.append(process.wait(60))
        if (carry / "manifest.json").exists():
            outcomes_there = transfer.merge(Store(place / f"{kill}" / "r", place / f"{kill}" / "w"), carry)
            assert {outcome.state for outcome in outcomes_there} == {"added"}, "old or new, but whole"
    assert sweep(place).wait(900) == 0, (place / "output").read_text()
    assert -signal.SIGKILL in ends and outcomes(store.records) == outcomes(store_in(undisturbed).records)
