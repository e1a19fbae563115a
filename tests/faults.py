"""The fault campaign, `make faults`: what machines do to sweeps and to the book, at moments drawn from a seed. Each
case ends with the records of an undisturbed sweep, or with one clear sentence; a table of them goes to --out."""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "cluster")]
os.environ |= {"OMP_NUM_THREADS": "1"}

from sweeps import PROFILE, Sweep, arguments, left_behind, outcomes  # noqa: E402

from rkd.cli import main  # noqa: E402
from rkd.files import write_atomic  # noqa: E402

EPOCHS = 8
LONG = ("-s", f"epochs={EPOCHS}")


class Skip(Exception):
    """Why a fault cannot be tried here."""


class Campaign:
    """Cases, each in a folder of its own, with a generator seeded by the campaign's seed and its name.

    Args:
        folder: for all that is made.
        seconds: no case begins later.
        only: cases whose names hold this.
    """

    def __init__(self, folder, seed, seconds, only=""):
        self.folder, self.seed, self.only, self.cases = folder, seed, only, []
        self.end = time.monotonic() + seconds
        self.profile = folder / "own.yaml"
        self.profile.write_text(PROFILE, encoding="utf-8")
        self.finished = folder / "undisturbed"
        assert self.call(self.finished)[0] == 0
        self.wanted = outcomes(self.finished)

    def call(self, results, *more, command=None):
        """A call in this process: its exit status, and what it said."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main(command or arguments(self.profile, results, *LONG, *more))
        return status, said.getvalue()

    def sweep(self, results, **how):
        return Sweep(self.profile, results, *LONG, **how)

    def differ(self, results, said=""):
        """None where the records are those of the undisturbed sweep, and nothing is left behind."""
        damaged = results / "damaged"  # what was set aside
        aside = left_behind(damaged) if damaged.exists() else []
        same = outcomes(results) == self.wanted and len(left_behind(results)) == len(aside)
        return None if same else f"records differ: {said[-300:]}"

    def case(self, fault, tried, function, **more):
        """Try a fault so many times: `function(campaign, folder, draw)` returns None, or how it was not survived."""
        if self.only not in fault:
            return
        started, survived, notes, done = time.monotonic(), 0, [], 0
        for number in range(tried):
            if time.monotonic() > self.end:
                notes.append("the campaign's time was up")
                break
            folder = self.folder / f"{len(self.cases)}-{number}"
            folder.mkdir()
            try:
                wrong = function(self, folder, random.Random(f"{self.seed} {fault} {number}"), **more)
            except Skip as skip:
                notes.append(f"skipped: {skip}")
                break
            done, survived = done + 1, survived + (not wrong)
            notes += [wrong] * bool(wrong)
        how = "; ".join(" ".join(note.split()) for note in notes) or function.__doc__
        row = {"fault": fault, "tried": done, "survived": survived, "how": how}
        self.cases.append(row | {"seconds": round(time.monotonic() - started)})
        print(f"{fault:44}{survived:3} of {done:3}  {how}", flush=True)


def sentence(status, said, *words):
    """None where a call ended with one clear sentence that has these words."""
    lines = [line for line in said.splitlines() if all(word in line for word in words)]
    if status in (1, 2) and lines and "Traceback" not in said:
        return None
    return f"exit {status} without a sentence: {said[-300:]!r}"


def killed_sweeps(c, folder, draw):
    """killed at a random moment, and again, then finished: records equal"""
    for _ in range(2):
        process = c.sweep(folder)
        process.process.join(draw.uniform(0, 4))
        process.kill()
    c.sweep(folder).ended(0)
    return c.differ(folder)


def two_sweeps(c, folder, draw):
    """two at once, one of them killed: records equal"""
    first, second = c.sweep(folder), c.sweep(folder)
    first.until_an_epoch(draw.uniform(0, 0.1))
    first.kill()
    second.ended(0)
    return c.differ(folder)


def full_disk(c, folder, draw):
    """one sentence; with room again, records equal"""
    return on_small_disk(c, folder, f"size={draw.randrange(60, 900)}k", "No space left on device")


def read_only(c, folder, draw):
    """one sentence; writable again, records equal"""
    return on_small_disk(c, folder, "ro", "Read-only file system")


def on_small_disk(c, folder, options, word):
    """A tmpfs that is `options` for one sweep, and large and writable for the next."""
    if os.geteuid() != 0:
        raise Skip("mounting takes root")
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], check=False).returncode:
        raise Skip("no tmpfs can be mounted here")
    try:
        results = disk / "r"
        results.mkdir()
        subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)
        wrong = sentence(*c.call(results), word)
        subprocess.run(["mount", "-o", "remount,rw,size=64m", disk], check=True)
        status, said = c.call(results)
        return wrong or (c.differ(results, said) if status == 0 else f"exit {status}: {said[-200:]}")
    finally:
        subprocess.run(["umount", disk], check=True)


def clock_back(c, folder, draw):
    """the clock goes back by a day in mid-sweep, and files are of tomorrow: records equal"""
    process = c.sweep(folder, first=_clock)
    process.until_an_epoch(draw.uniform(0, 0.5))
    process.kill()
    for path in folder.rglob("*"):
        os.utime(path, (time.time() + 86400,) * 2)
    c.sweep(folder, first=_clock).ended(0)
    return c.differ(folder)


def _clock():
    real, started = time.time, time.monotonic()
    time.time = lambda: real() - 86400 * (time.monotonic() - started > 1)


def damaged(c, folder, draw, kind, flip):
    """told by one sentence or harmless; set aside and trained again: records equal"""
    shutil.copytree(c.stopped, folder, dirs_exist_ok=True)
    files = sorted(folder.glob(kind))
    if not files:
        raise Skip(f"there was no {kind}")
    victim = draw.choice(files)
    data = bytearray(victim.read_bytes())
    if flip:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    else:
        del data[draw.randrange(len(data)) :]
    victim.write_bytes(data)
    (status, said), wrong = c.call(folder), None
    if status:
        wrong = sentence(status, said, victim.name)
        where = ["--profile", str(c.profile), "--results", str(folder)]
        c.call(folder, command=["records", "check", *where, "--quarantine"])
        status, said = c.call(folder)
    if kind.endswith("log.txt"):  # for people; no record depends on it
        return wrong or (None if outcomes(folder) == c.wanted else "records differ")
    return wrong or (
        c.differ(folder, said) if status == 0 else f"{victim.name}: exit {status}: {said[-300:]}"
    )


# --- the book -----------------------------------------------------------------------------------------------


def build(home):
    """`rkd book` of one page, in a copy of the project's folders."""
    for name in ("book", "params", "_config.yml"):
        if not (home / name).exists():
            (home / name).symlink_to(ROOT / name)
    (home / "results").mkdir(exist_ok=True)
    call = [sys.executable, "-m", "rkd", "book", "--only", "table5", "--no-html"]
    environment = {**os.environ, "RKD_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        call, env=environment, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def book_equal(c, home):
    if not hasattr(c, "book"):
        other = c.folder / "book"
        other.mkdir()
        assert build(other).wait(900) == 0
        c.book = outcomes(other / "_build" / "smoke" / "records")
    process = build(home)
    said, _ = process.communicate(timeout=900)
    same = c.book and outcomes(home / "_build" / "smoke" / "records") == c.book
    return None if process.returncode == 0 and same else f"exit {process.returncode}: {said[-300:]}"


def killed_books(c, folder, draw):
    """killed at a random moment, then finished: records equal"""
    process = build(folder)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(draw.uniform(1, 25))
    process.kill()
    process.communicate()
    return book_equal(c, folder)


def dead_kernel(c, folder, draw):
    """one sentence; built again, records equal"""
    process, kernels = build(folder), []
    while not kernels and process.poll() is None:
        time.sleep(0.05)
        with contextlib.suppress(psutil.Error):  # the nursery's children are the kernels
            below = psutil.Process(process.pid).children()
            kernels = [kernel for nursery in below for kernel in nursery.children()]
    time.sleep(draw.uniform(0, 3))
    with contextlib.suppress(psutil.Error):
        kernels[0].kill()
    said, _ = process.communicate(timeout=900)
    code = process.returncode
    return (code and sentence(code, said, "its kernel died without a word")) or book_equal(c, folder)


# --- the cluster --------------------------------------------------------------------------------------------


def on_cluster(c, folder, draw, what):
    """records equal"""
    from test_ray import SMALL, Driver

    driver = Driver(c, c.nodes, folder, EPOCHS)
    driver.until_an_epoch(draw.uniform(0, 1))
    if what == "driver":
        driver.kill()
        driver = Driver(c, c.nodes, folder, EPOCHS)
    else:
        workers = sorted(c.nodes.worker_nodes, key=lambda node: node.node_id)
        c.nodes.remove_node(draw.choice(workers), allow_graceful=False)
        c.nodes.add_node(**SMALL)
    driver.process.join(240)
    code = driver.process.exitcode
    return c.differ(folder) if code == 0 else f"exit {code}: {driver.err[-300:]}"


def campaign(folder, seed, seconds, only=""):
    c = Campaign(folder, seed, seconds, only)
    c.stopped = folder / "stopped"  # with every kind of file
    process = c.sweep(c.stopped)
    while not (list(c.stopped.glob("*.json")) and list(c.stopped.glob("work/*/checkpoint.pt"))):
        assert process.process.exitcode is None, process.out
        time.sleep(0.002)
    process.kill()
    c.case("SIGKILL of a sweep, twice", 8, killed_sweeps)
    c.case("SIGKILL of rkd book", 4, killed_books)
    c.case("a kernel of rkd book killed", 2, dead_kernel)
    c.case("two sweeps on one folder, one killed", 3, two_sweeps)
    c.case("full disk", 5, full_disk)
    c.case("read-only folder", 1, read_only)
    c.case("clock set back", 2, clock_back)
    for kind in ("*.json", "work/*/checkpoint.pt", "work/*/last.pt", "work/*/best.pt", "work/*/log.txt"):
        for what in ("truncated", "flipped bit"):
            c.case(f"{what}: {kind}", 4, damaged, kind=kind, flip=what == "flipped bit")
    if only not in "a node of a cluster killed, the driver of a cluster killed":
        return c.cases
    if importlib.util.find_spec("ray") is None:
        print("the cases of a cluster are left out: Ray is not installed", file=sys.stderr)
        return c.cases
    from test_ray import cluster

    with cluster() as c.nodes:
        for what in ("a node", "the driver"):
            c.case(f"{what} of a cluster killed", 2, on_cluster, what=what.split()[1])
    return c.cases


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--only", default="", help="cases whose names hold this; others in --out stay")
    parser.add_argument("--out", type=Path, help="for the book: results/bench/faults.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rkd-faults-") as place_of_all:
        found = campaign(Path(place_of_all), options.seed, options.seconds, options.only)
    if options.out:
        others = json.loads(options.out.read_text())["cases"] if options.only and options.out.exists() else []
        merged = {case["fault"]: case for case in (*others, *found)}
        body = {"format": 1, "kind": "rkd faults", "seed": options.seed, "cases": list(merged.values())}
        write_atomic(options.out, f"{json.dumps(body, indent=1)}\n".encode())
    survived, tried = (sum(case[part] for case in found) for part in ("survived", "tried"))
    print(f"seed {options.seed}: {survived} of {tried} faults survived")
    sys.exit(survived < tried)
