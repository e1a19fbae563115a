"""`rkd bench` from the command line to its file, and what it refuses."""

import contextlib
import json
import os
import statistics

import pytest
import torch

from rkd.bench import Request, Result, measurement
from rkd.bench.measurement import _distinct
from rkd.bench.result import KIND, files
from rkd.bench.variants import ALL, NOTHING, TEACHER, Variant, variants
from rkd.cli import main
from rkd.errors import ConfigError, RecordError
from rkd.experiments.estimate import sizes, work

CALL = [
    "bench", "--pair", "resnet8/resnet8", "--seconds", "3", "--batch-size", "8", "--gang", "2",
    "--precision", "fp32", "bf16", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """(file, result, printed text) of one small measurement."""
    import io

    path = tmp_path_factory.mktemp("bench") / "deep" / "cpu.json"
    cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        assert main([*CALL, "--out", str(path)]) == 0
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == cache
    return path, Result.load(path), out.getvalue()


def test_every_variant_is_measured_in_every_round(bench):
    _, result, _ = bench
    named = [(row.variant.batch_norm, row.name) for row in result.rows]
    assert named == [
        (mode, name)
        for mode in ("running", "batch")
        for name in ("conventional", "fp32", "bf16", "bf16, gang of 2")
    ]
    rounds = result.header["rounds"]
    assert rounds >= 3 and all(len(row.times_ms) == rounds for row in result.rows)
    assert all(t > 0 for row in result.rows for t in row.times_ms)
    assert all(row.cold_seconds > 0 and row.counts is not None for row in result.rows)


def test_counts_tell_the_variants_apart(bench):
    _, result, _ = bench
    conventional, fp32, bf16, gang = result.rows[:4]
    assert conventional.counts.host_reads == 2
    assert [row.counts.host_reads for row in (fp32, bf16, gang)] == [0, 0, 0]
    assert fp32.counts.ops < conventional.counts.ops and fp32.counts.bytes < conventional.counts.bytes
    assert 0.4 < bf16.counts.product_bytes / fp32.counts.product_bytes < 0.6
    assert fp32.counts.flops == bf16.counts.flops
    # A gang of two makes two students' steps, and one teacher pass.
    assert fp32.counts.flops < gang.counts.flops < 2 * fp32.counts.flops


def test_flops_are_those_of_the_estimate(bench):
    """The rule of the estimates (backward is twice forward) counts the gradient by the images, which nobody needs."""
    _, result, _ = bench
    from rkd.bench.variants import Workload

    config = Workload("resnet8", "resnet8", 8, torch.device("cpu")).config("fp32", "batch")
    expected = 2 * 8 * work(config, sizes(config.data, "data")).training(1, 1)
    fp32 = result.rows[1].counts.flops
    assert 0.97 * expected < fp32 <= expected


def test_what_follows_by_arithmetic(bench):
    path, result, _ = bench
    body = json.loads(path.read_text())
    assert body["kind"] == KIND and body["format"] == 1
    row, reference = result.rows[1], result.rows[0]
    derived = body["rows"][1]["derived"]
    assert derived["median_ms"] == pytest.approx(statistics.median(row.times_ms), rel=1e-4)
    assert derived["images_per_second"] == pytest.approx(8000 / row.median_ms, rel=1e-4)
    assert derived["ratio"]["best"] == pytest.approx(min(reference.times_ms) / min(row.times_ms), rel=1e-4)
    epoch = 50_000 / row.images_per_second + 10_000 / result.evaluation.ours
    assert derived["epoch_seconds"] == pytest.approx(epoch, rel=1e-4)
    assert derived["run_seconds"] == pytest.approx(240 * epoch, rel=1e-4)
    assert body["rows"][0]["derived"]["ratio"]["median"] == 1.0
    theirs = 50_000 / reference.images_per_second + 10_000 / result.evaluation.conventional
    assert result.epoch_seconds(reference) == pytest.approx(theirs)
    assert all(
        result.reference(r).variant == Variant(r.variant.batch_norm, conventional=True) for r in result.rows
    )


def test_gradients_are_ordered_by_precision(bench):
    _, result, _ = bench
    errors = {g.arithmetic: g.relative_error for g in result.gradients}
    assert errors["fp32"] < errors["fp16"] < errors["bf16"]
    assert all(g.cosine > 0.9 for g in result.gradients)


def test_file_comes_back_as_it_was(bench, tmp_path):
    path, result, _ = bench
    result.save(tmp_path / "again.json")
    assert Result.load(tmp_path / "again.json") == result
    assert not [p for p in path.parent.iterdir() if p != path], "nothing half-written is left"
    (tmp_path / "gate.json").write_text('{"kind": "rkd gate"}')
    assert files(tmp_path, KIND) == [tmp_path / "again.json"]


def test_text_says_where_when_and_how_to_repeat(bench):
    _, result, text = bench
    header = result.header
    for said in (
        header["device_name"], header["torch"], header["began"], "load average", "Teacher on running statistics",
        "Teacher on batch statistics", "bf16, gang of 2", "matrix product", "against float64", "test images",
        "--pair resnet8/resnet8 --batch-size 8 --device cpu --precision fp32 bf16", "--gang 2", "--threads 1",
    ):  # fmt: skip
        assert str(said) in text
    if header["seconds_used"] > 3.3:
        assert "3 s were asked for and" in text
    tables = text.split("\n\n")
    heads = tables[1].splitlines()[1]
    assert all(len(line) == len(heads) for line in tables[1].splitlines()[2:]), "columns are aligned"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pair", "resnet56"], "write TEACHER/STUDENT"),
        (["--pair", "resnet56/resnet21"], "unknown model 'resnet21'"),
        (["--gang", "0"], "gang is 0; it must be >= 1"),
        (["--batch-size", "1"], "batch_size is 1; it must be between 2 and 5000"),
        (["--batch-size", "-4"], "batch_size is -4"),
        (["--batch-size", "6000"], "batch_size is 6000"),
        (["--seconds", "-1"], "seconds is -1.0; it must be a finite number > 0"),
        (["--seconds", "nan"], "seconds is nan"),
        (["--precision", "fp8"], "unknown precision 'fp8'"),
        (["--teacher-batch-norm", "runing"], "did you mean 'running'?"),
        (["--compile", "everything"], "unknown compile 'everything'"),
        (["--threads", "0"], "threads is '0'; it must be auto or a whole number >= 1"),
        (["--device", "tpu9"], "unknown device 'tpu9'"),
        (["--out", "bench.txt"], "must be the name of a .json file"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"kind": "rkd gate", "format": 1}', "is not what `rkd bench`"),
        ('{"kind": "rkd bench", "format": 9}', "is not what `rkd bench`"),
        ('{"kind": "rkd bench", "format": 1}', "is damaged"),
    ],
)
def test_damaged_files_get_one_sentence(text, message, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=message):
        Result.load(path)
    with pytest.raises(RecordError, match="cannot be read"):
        Result.load(tmp_path / "none.json")


def test_a_variant_that_cannot_run_is_told_and_left_out(monkeypatch):
    from rkd.bench import measurement

    def refuse(variant, work):
        raise RuntimeError("operation not permitted while capturing\nand more")

    monkeypatch.setattr(measurement, "contestant", refuse)
    made = measurement._Measurement(Request(), torch.device("cpu"), ["fp32"], lambda text: None)
    made._enter(Variant("batch", "auto", graph=True, compile=TEACHER, gang=3))
    assert made.entries == [] and made.notes == [
        "ours, auto, compiled teacher, CUDA graph, gang of 3, teacher on batch statistics: could not run "
        "(operation not permitted while capturing)"
    ]
    with pytest.raises(RuntimeError):  # without it there is nothing to compare with
        made._enter(Variant("batch", conventional=True))


def test_rounds_take_turns_and_are_three_at_least():
    from rkd.bench import measurement

    order = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def step(self):
            order.append(self.name)

        def kernels(self):
            return contextlib.nullcontext()

    made = measurement._Measurement(Request(seconds=1e-3), torch.device("cpu"), ["fp32"], lambda text: None)
    made._ceiling_seconds = 0.0
    made.entries = [
        measurement._Entry(Variant("batch"), Fake(name), 0.0, None, times=(1.0,)) for name in "abc"
    ]
    assert made._rounds() == 3 and "".join(order) == "abcbcacab"
    assert all(len(entry.times) == 3 for entry in made.entries)


def test_variants_of_an_engine():
    plain = variants(("batch",), ("fp32", "auto"))
    assert plain == [Variant("batch", conventional=True), Variant("batch"), Variant("batch", "auto")]
    made = variants(("running", "batch"), ("fp32", "auto"), 4, (NOTHING, TEACHER, ALL), (True, False))
    assert len(made) == len(set(made)) == 2 * (1 + 3 * 3 * 2)
    assert {v.precision for v in made if v.gang == 4} == {"auto"}


def test_precisions_that_mean_the_same_count_once():
    found = _distinct(("fp32", "auto", "bf16", "fp32"), torch.device("cpu"))
    assert found in (["fp32", "auto"], ["fp32", "bf16"])


def test_request_knows_networks_by_any_spelling():
    assert Request("ResNet-56", "ResNet20").student == "resnet20"
    with pytest.raises(ConfigError, match="no precision was named"):
        Request(precisions=())


@pytest.mark.parametrize(
    ("two", "chosen", "words"),
    [
        # The conventional loop decides, even where ours would choose otherwise.
        (
            0.5,
            2,
            "1: 600 ms conventional, 200 ms ours; 2: 300 ms conventional, 1,000 ms ours. The rest is with 2",
        ),
        (20.0, 1, "1: 600 ms conventional, 200 ms ours; 2: 12,000 ms conventional. The rest is with 1"),
    ],
)
def test_auto_takes_the_number_of_threads_the_conventional_loop_is_quickest_with(
    two, chosen, words, monkeypatch
):
    """Steps of given seconds: with two threads `two` times those with one, and five times for ours."""
    made = []

    class Fake:
        def __init__(self, variant, work):
            self.conventional = variant.conventional
            self.open = True
            made.append(self)

        def kernels(self):
            return contextlib.nullcontext()

        def close(self):
            self.open = False

        def step(self):
            slower = two if self.conventional else 5
            return (0.6 if self.conventional else 0.2) * (slower if torch.get_num_threads() == 2 else 1)

    monkeypatch.setattr(measurement, "Workload", lambda *arguments: None)
    monkeypatch.setattr(measurement, "contestant", Fake)
    monkeypatch.setattr(measurement.clock, "seconds", lambda step, repeats, device: step())
    monkeypatch.setattr(measurement, "numbers", lambda setting, device: (1, 2))
    cpu = torch.device("cpu")
    try:
        bench = measurement._Measurement(Request(), cpu, ["fp32"], lambda text: None)
        bench._choose_threads()
        assert torch.get_num_threads() == chosen
    finally:
        torch.set_num_threads(1)
    assert words in bench.notes[0] and not any(fake.open for fake in made)
