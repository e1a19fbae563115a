"""`rkd bench speed` from the command line to its file: counts and ratios by hand, switches; what it and the gate
refuse."""

import contextlib
import functools
import io
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from rkd.bench import BenchResult, Request, committed, load, save
from rkd.bench.clock import count
from rkd.bench.measurement import Timed, first_step, measure, time_rounds, variants
from rkd.bench.steps import TEACHER, Variant, Workload
from rkd.bench.tables import command
from rkd.cli import main
from rkd.errors import ConfigError, RecordError, RkdError
from rkd.experiments.estimate import dataset_sizes, run_macs

CPU = torch.device("cpu")
CALL = (
    "bench --pair resnet8/resnet8 --seconds 1 --batch-size 4 --group 2 --precision fp32 --teacher-batch-norm running "
    "--device cpu --out"
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """(file, result, printed text) of one small measurement."""
    path = tmp_path_factory.mktemp("bench") / "cpu.json"
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        assert main([*CALL.split(), str(path)]) == 0
    return path, load(path, BenchResult), out.getvalue()


def test_every_variant_is_measured_in_every_round_and_shown(bench):
    _, result, text = bench
    assert [r.name for r in result.rows] == ["conventional", "fp32", "fp32, group of 2"]
    made = result.header["rounds"]
    assert made >= 3 and all(len(row.times_ms) == made and min(row.times_ms) > 0 for row in result.rows)
    for said in (result.header["device_name"], *(row.name for row in result.rows), command(result.header)):
        assert said in text


def test_counts_tell_the_variants_apart(bench):
    _, result, _ = bench
    conventional, ours, group = (SimpleNamespace(**row.counts) for row in result.rows)
    assert conventional.host_reads == 2 and ours.host_reads == group.host_reads == 0
    assert ours.ops < conventional.ops
    # A run group of two makes two students' steps, and one teacher pass.
    assert ours.flops < group.flops < 2 * ours.flops
    # The rule of the estimates (backward is twice forward) counts the gradient by the images, which nobody needs.
    config = Workload("resnet8", "resnet8", 4, CPU).config()
    expected = 2 * 4 * run_macs(config, dataset_sizes(config.data, "data")).training(1, 1)
    assert 0.97 * expected < ours.flops <= expected


def test_file_comes_back_as_it_was(bench, tmp_path, monkeypatch):
    path, result, _ = bench
    body = json.loads(path.read_text())
    assert (body["kind"], body["format"]) == ("rkd bench", 2)
    assert body["header"]["teacher_batch_norm"] == ["running"]
    folder = tmp_path / "results" / "bench"
    save(folder / "again.json", result)
    assert load(folder / "again.json", BenchResult) == result
    (folder / "gate.json").write_text('{"kind": "rkd gate"}')
    monkeypatch.setattr("rkd.paths.home", lambda: tmp_path)
    assert committed(BenchResult) == {"again.json": result}


def test_committed_files_load():
    found = list(committed(BenchResult).values())
    assert len(found) >= 3
    row = found[0].rows[1]
    assert (row.name, row.counts["ops"], row.counts["host_reads"]) == ("fp32", 539, 0)
    assert found[0].ratio(found[0].rows[0]) == [1.0, 1.0, 1.0]
    assert command(found[0].header) == "rkd bench speed --device cpu --compile engine --threads 2"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("bench --pair resnet56", "write TEACHER/STUDENT"),
        ("bench --batch-size 1", "batch_size is 1; it must be between 2 and 5000"),
        ("bench --teacher-batch-norm runing", "did you mean 'running'?"),
        ("bench --threads 0", "threads is '0'; it must be auto or a whole number >= 1"),
        ("bench --out bench.txt", "must be the name of a .json file"),
        (
            "bench --cudnn-benchmark --device cpu",
            "cudnn_benchmark concerns kernels of cuDNN, and the device is 'cpu'",
        ),
        ("gate --seeds a,b", "seeds is 'a'"),
        ("gate --precision fp32", "nothing to compare"),
        ("gate --precision fp8", "unknown precision 'fp8'"),
        ("gate --chapter table9", "unknown chapter 'table9'"),
    ],
)
def test_bad_input_gets_one_sentence(call, message, rkd):
    status, _, err = rkd(call)
    assert status == 2 and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"kind": "rkd bench", "format": 2}', "is damaged"),
        ('{"kind": "rkd bench", "format": 1}', "is not what `rkd bench` of this version writes"),
        ("[" * 200_000, "is damaged"),
        ('{"kind": "rkd gate"}', "is not what"),
    ],
)
def test_damaged_files_get_one_sentence(text, message, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RecordError, match=message):
        load(tmp_path / "x.json", BenchResult)


def test_variants_of_a_request():
    made = variants(Request(precision=("fp32", "fp64", "fp32"), teacher_batch_norm=("batch",)), CPU)
    assert made == [Variant("batch", conventional=True), Variant("batch"), Variant("batch", "fp64")]
    made = variants(Request(precision=("fp32", "fp16"), group=4, compile="all"), torch.device("cuda"))
    assert len(made) == len(set(made)) == 2 * (1 + 3 * 3 * 2)
    assert {v.precision for v in made if v.group == 4} == {"fp16"}
    made = variants(Request(precision=("fp16",), compile="engine", kernels=("native",)), CPU)
    assert [v.name for v in made[:3]] == ["conventional", "fp16, native BN", "fp16, compiled teacher"]
    with pytest.raises(ConfigError, match=r"precision is \(\)"):
        Request(precision=())


def test_a_variant_that_cannot_run_is_told_and_left_out(monkeypatch):
    def refuse(variant):
        raise RuntimeError("operation not permitted while capturing\nand more")

    work, notes = Workload("resnet8", "resnet8", 4, CPU), []
    monkeypatch.setattr(work, "begin", refuse)
    assert first_step(work, Variant("batch", graph=True, compile=TEACHER, group=3), print, notes) == []
    assert notes == [
        "fp32, compiled teacher, CUDA graph, group of 3, teacher on batch statistics: could not run "
        "(operation not permitted while capturing)"
    ]
    with pytest.raises(RuntimeError):  # without it there is nothing to compare with
        first_step(work, Variant("batch", conventional=True), print, notes)


def test_without_a_variant_of_ours_nothing_is_measured(monkeypatch):
    begin = Workload.begin

    def only_theirs(work, variant):
        if not variant.conventional:
            raise RuntimeError("no memory")
        return begin(work, variant)

    monkeypatch.setattr(Workload, "begin", only_theirs)
    request = Request("resnet8", "resnet8", 4, "cpu", ("fp32",), ("batch",), threads=1, seconds=0.1)
    with pytest.raises(RkdError, match=r"nothing to compare .* with: .*fp32, .* could not run .no memory"):
        measure(request, print)


def test_rounds_take_turns_and_are_three_at_least():
    order = []
    steps = (functools.partial(order.append, name) for name in "abc")
    fakes = [SimpleNamespace(step=step, context=contextlib.nullcontext) for step in steps]
    timed = [Timed(Variant("batch"), fake, 0.0, None, times=[1.0]) for fake in fakes]
    assert time_rounds(timed, 0.0, CPU, print) == 3 and "".join(order) == "abcbcacab"
    assert all(len(one.times) == 3 for one in timed)


def test_native_kernels_are_those_of_every_batch_norm_and_of_nothing_else(monkeypatch):
    """In student, fusion modules and teacher; what is computed stays the same, and so do cuDNN's other flags."""
    seen = {"batch_norm": [], "conv2d": []}

    def told(name, function, *arguments, **named):
        seen[name].append(torch.backends.cudnn.enabled)
        return function(*arguments, **named)

    for name in seen:
        monkeypatch.setattr(F, name, functools.partial(told, name, getattr(F, name)))
    work, weights = Workload("cases:Tiny", "cases:Tiny", 4, CPU), []
    for kernels in ("cudnn", "native"):
        made = work.begin(Variant("batch", kernels=kernels, cudnn_benchmark=True))
        seen["batch_norm"].clear(), seen["conv2d"].clear()
        with made.context():
            made.step()
            assert torch.backends.cudnn.benchmark and torch.backends.cudnn.deterministic
        assert set(seen["conv2d"]) == {True} and set(seen["batch_norm"]) == {kernels == "cudnn"}
        assert len(seen["batch_norm"]) == 3 + 8 + 3
        weights.append(torch.cat([p.flatten() for p in made.states[0].parameters]))
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_counts_by_hand():
    a = torch.ones(10, 10)
    for step, ops in ((lambda: a + a, 1), (lambda: a[2:5].detach().t(), 0), (lambda: a.clone().add_(a), 2)):
        assert count(step) == {"ops": ops, "host_reads": 0, "flops": 0}
    assert count(lambda: a.sum().item()) == {"ops": 1, "host_reads": 1, "flops": 0}
    assert count(lambda: torch.ones(4, 5) @ torch.ones(5, 6))["flops"] == 2 * 4 * 5 * 6
    x = torch.ones(2, 3, 8, 8, requires_grad=True)
    wide, narrow = (torch.ones(*shape, requires_grad=True) for shape in ((4, 3, 3, 3), (7, 4, 1, 1)))
    counts = count(lambda: F.conv2d(F.conv2d(x, wide, padding=1), narrow).sum().backward())
    large, small = 2 * 2 * 64 * (4 * 3 * 9), 2 * 2 * 64 * (7 * 4)
    assert counts["flops"] == 3 * (large + small)
    weights = [torch.ones(100, requires_grad=True) for _ in range(5)]
    for p in weights:
        p.grad = torch.ones(100)
    assert count(torch.optim.SGD(weights, 0.1, fused=True).step)["ops"] == 1
