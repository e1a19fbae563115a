"""Shared by all tests: small configs, the built site in a browser, and one thread per process so that results do not
depend on the machine."""

import functools
import http.server
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # `threads: auto` takes it, and measures nothing

import pytest
import torch
from browser import chromium
from filelock import FileLock
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from rkd import data, models
from rkd.cli import main
from rkd.records import Store
from rkd.review import ReviewOptions
from rkd.training import (
    DataConfig,
    FrozenTeacher,
    RunConfig,
    SGDConfig,
    TeacherConfig,
    TrainState,
    accuracy,
    arithmetic,
    train,
)
from rkd.training.build import build_method, build_network
from rkd.training.capture import checked_capture

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)
models.trust(["cases:Tiny"])


def tiny_data(**values):
    return DataConfig(
        **{"name": "embedded", "normalisation": "embedded", "train_images": 100, "test_images": 100, **values}
    )


def tiny_plain(**values):
    """A two-epoch run on 100 images, 2 batches an epoch (the second one short)."""
    defaults = {
        "network": "resnet8", "data": tiny_data(), "epochs": 2, "batch_size": 64,
        "optimiser": SGDConfig(lr=0.05, decay_epochs=(1,), decay_when="before"),
    }  # fmt: skip
    return RunConfig(**{**defaults, **values})


def tiny_review(options=None, teacher_weights="random", batch_norm="batch", **values):
    """The same with an untrained teacher, so that it needs no run before it."""
    teacher = TeacherConfig(
        run=tiny_plain(network="resnet14", epochs=1), weights=teacher_weights, batch_norm=batch_norm
    )
    options = options or ReviewOptions(warmup_epochs=0)
    return tiny_plain(**{"method": "reviewkd", "options": options, "teacher": teacher, **values})


def accuracy_of(runner, run, which="last"):
    """Test accuracy in percent of an ended run's weights, measured again."""
    network, images = runner.network(run, which)
    return accuracy(network, images.test_x, images.test_y, images.mean, images.std)


def small_plain(**values):
    """Two epochs of a whole batch of 24 images and a short one of 16, on a network of three convolutions."""
    few = {"network": "cases:Tiny", "data": tiny_data(train_images=40, test_images=20), "batch_size": 24}
    return tiny_plain(**{**few, **values})


def small(options=None, weights="random", batch_norm="batch", **values):
    """The same, taught; by ReviewKD unless `method` says otherwise."""
    teacher = TeacherConfig(run=small_plain(epochs=1), weights=weights, batch_norm=batch_norm)
    options = ReviewOptions(warmup_epochs=0) if options is None else options
    return small_plain(**{"method": "reviewkd", "options": options, "teacher": teacher, **values})


images_of = functools.cache(data.load)


@functools.cache
def teacher_of(config, precision, compile):
    """It has no state, and serves all."""
    numbers = arithmetic(precision, torch.device("cpu"))
    network = build_network(config.run, 100).to(numbers.master, memory_format=torch.channels_last)
    return FrozenTeacher(network, config.batch_norm, numbers, compile)


def make(config, compile=False):
    """A state and its teacher, placed as groups place them."""
    numbers, labels = arithmetic(config.precision, torch.device("cpu")), images_of(config.data).train_y
    student, teacher, method = build_network(config, 100), None, None
    if config.teacher is not None:
        network = build_network(config.teacher.run, 100)
        method = build_method(config, student, network, 32, 100, labels).to(numbers.master)
        teacher = teacher_of(config.teacher, config.precision, compile)
    student = student.to(numbers.master, memory_format=torch.channels_last)
    return TrainState(config, student, method, compile), teacher


def first_batch(config):
    """Images, labels and indices."""
    batches = data.Batches(images_of(config.data), config.data.padding, config.data.flip)
    return next(batches.epoch(0, config.seed, config.batch_size))


class StopAfter:
    """A `stop` that lets so many steps and evaluations happen."""

    def __init__(self, pieces):
        self.left = pieces

    def __call__(self, needed):
        self.left -= 1
        return self.left < 0


def trained(config, state=None, **how):
    """A state of its own, or the given one, trained to its end or as far as `stop` lets it."""
    made, teacher = make(config)
    train([state or made], images_of(config.data), teacher, **how)
    return state or made


def values(state):
    method = {} if state.method is None else state.method.state_dict()
    return {**state.student.state_dict(), **{f"m.{k}": v for k, v in method.items()}}


def assert_same(state, wanted):
    """To the bit."""
    for name, value in values(wanted).items():
        assert torch.equal(values(state)[name], value), name
    assert state.curves == wanted.curves


def again(body):
    """The simplest recording: to do it once more."""
    body()
    return body


def traced(body):
    """A stand-in for a CUDA graph: every operation of one step, recorded with the very tensors it used. What the step
    reads from the host is frozen into the recording; a read back from a tensor to the host is an error."""

    def recorded():
        body()
        return ()

    graph = make_fx(recorded)()
    operations = {str(node.target) for node in graph.graph.nodes}
    assert not [name for name in operations if "local_scalar" in name or name == "aten.nonzero.default"]
    return torch.no_grad()(graph)  # the backward pass is in the recording


def stand_in(body, changed):
    """A capture with all its trial steps."""
    return checked_capture(body, changed, traced)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "records", tmp_path / "work")


class Silent:
    """A progress that keeps what it was told."""

    def __init__(self):
        self.titles, self.epochs, self.said = [], [], []

    def begin(self, title, epochs, images):
        self.titles.append(title)

    def batch(self, epoch, done, total):
        pass

    def epoch(self, state):
        self.epochs.append((state.config.id, state.epoch))

    def end(self):
        pass

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def silent():
    return Silent()


# --- networks ----------------------------------------------------------------------------------------


def with_statistics(name, classes=100):
    """A network in float64 and eval mode, with every BatchNorm of its own."""
    torch.manual_seed(1)
    network = models.build(name, classes).double().eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    return network


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture
def rkd(capsys):
    """Exit status of a call, what it prints, and what it complains of."""

    def call(line, *more):
        capsys.readouterr()
        status = main([*shlex.split(line), *map(str, more)])
        out, err = capsys.readouterr()
        return status, out, re.sub(r"^W\d{4} .*\n", "", err, flags=re.MULTILINE)  # of torch's own log

    return call


@pytest.fixture
def done(rkd):
    """What a call prints that does what it should."""

    def call(line, *more):
        status, out, err = rkd(line, *more)
        assert status == 0, err
        return out

    return call


@pytest.fixture
def in_book(monkeypatch):
    """As if a build of the book executed what is tested."""
    monkeypatch.setenv("RKD_BOOK", "token")


# --- the built site ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def site() -> Path:
    """Folder of the built site: the one named by RKD_SITE (its index.html or folder), else _build/html, which is built
    with the smoke profile if it is not there."""
    named = os.environ.get("RKD_SITE")
    if named:
        folder = Path(named) if Path(named).is_dir() else Path(named).parent
        assert (folder / "index.html").is_file(), f"RKD_SITE is {named}, where no index.html lies"
        return folder
    folder = ROOT / "_build" / "html"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.parent / ".site-for-tests.lock"):  # of several processes one builds, the others wait
        if not (folder / "index.html").is_file():
            subprocess.run([sys.executable, "-m", "rkd", "book", "--profile", "smoke"], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="session")
def address(site):
    """Address at which the site is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            return None

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium with its logs of requests and of the console."""
    chrome = chromium(tmp_path_factory.mktemp("chromium"))
    yield chrome
    chrome.quit()
