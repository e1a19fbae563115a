"""How steps run on a GPU: how they are launched, their parallel branches, and their recording as CUDA graphs (trial
steps, the recording, its check, cleaning up after a failure). However it is launched, a step computes the same."""

import contextlib
import gc
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rkd.config import CountOrAuto, Flag, frozen
from rkd.errors import ConfigError, RkdError, unknown
from rkd.training.threads import thread_choices

Body = Callable[[], None]
Capture = Callable[[Body, Sequence[Tensor]], Body]

TRIALS = 3  # they choose and compile kernels; a recording must neither allocate for that nor ask the host
MOST_STREAMS = 32  # size of torch's pool; a 33rd stream would be one of the first again

# By device, created once and shared: torch hands out the streams of its pool in turn, so that new ones for every group
# would coincide with those of other groups, and with the one that records.
_streams: dict[torch.device, list[torch.cuda.Stream]] = {}
# Why a recording failed in this process: the state of CUDA and its allocator is then in doubt, and none is tried again.
failures: list[str] = []


class CaptureError(RkdError):
    """A step could not be recorded as a CUDA graph, or its recording does nothing."""


ENGINES = {"auto": None, "eager": False, "graph": True}


@frozen
class Engine:
    """How steps are executed. Not part of a run's identity: the mathematics is the same (sums round in another order).

    Attributes:
        compile: let torch.compile write kernels: for the teacher, and on CUDA for the students too (on a CPU compiled
            students are slower than eager ones, which oneDNN serves well). Needs a C++ compiler, and time for the first
            step: seconds on a CPU, half a minute to two minutes on CUDA.
        graph: capture a step as one CUDA graph; None: do so on CUDA, and go on without where that fails.
        eager: methods whose steps are never captured (see `experiments.check`).
        threads: number of threads that compute on a CPU; "auto" measures how many help, see `training.threads`.
    """

    compile: Flag = False
    graph: Flag | None = None
    eager: frozenset[str] = frozenset()
    threads: CountOrAuto = "auto"

    @classmethod
    def named(cls, engine: str | None, compile: bool = False, threads: int | str = "auto") -> "Engine":
        """Return the engine for a way to launch steps: "auto" (a CUDA graph on CUDA, kernel by kernel where that fails
        or on a CPU), "eager" (kernel by kernel) or "graph" (a CUDA graph or nothing); None: $RKD_ENGINE, else "auto".
        Raise ConfigError for another name."""
        name = os.environ.get("RKD_ENGINE", "auto") if engine is None else engine
        if name not in ENGINES:
            raise unknown("engine", name, ENGINES)
        return cls(compile, ENGINES[name], threads=threads)

    def check(self, device: torch.device) -> None:
        """Raise ConfigError if this machine cannot do what is asked for."""
        thread_choices(self.threads, device)
        if self.compile:
            if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
                raise ConfigError(
                    "compile was asked for, but this machine has no C++ compiler (g++ or clang++)"
                )
            # One function serves every kind of state and every batch size of a sweep, each with its own graph.
            torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 2**16
        if self.graph and device.type != "cuda":
            raise ConfigError(f"a CUDA graph was asked for, but the device is {str(device)!r}")

    def captures(self, device: torch.device, methods: Iterable[str | None] = ()) -> bool:
        """Whether the steps of runs by these methods are captured on `device`."""
        held_back = self.eager & {part for method in methods for part in (method or "").split("+")}
        return device.type == "cuda" and self.graph is not False and not held_back and not failures

    def cold_seconds(self, device: torch.device) -> float:
        """Return a generous guess of a group's extra seconds for its first step, for callers with limited time."""
        return 90.0 if self.compile else 15.0 if self.captures(device) else 0.0

    def compiles_students(self, device: torch.device) -> bool:
        """Whether students are compiled on `device`, in addition to the teacher."""
        return self.compile and device.type == "cuda"


def device_guard(device: torch.device) -> AbstractContextManager[object]:
    """Return a context manager that makes `device` current: streams and graphs belong to the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def streams(device: torch.device, count: int) -> list[torch.cuda.Stream]:
    """Return `count` + 1 streams: the first records, the others are branches. If there are more branches than streams,
    some branches share one and run one after another."""
    made = _streams.setdefault(device, [])
    while len(made) < min(count + 1, MOST_STREAMS):
        made.append(torch.cuda.Stream(device))
    branches = made[1:]
    return [made[0], *(branches[i % len(branches)] for i in range(count))]


def error_chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and all errors behind it, its causes and contexts."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one behind it, is a lack of device memory (cuDNN and cuBLAS word it in their own way)."""
    return any(
        isinstance(e, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(e) or "out of memory" in str(e)
        for e in error_chain(error)
    )


def describe_error(error: BaseException) -> str:
    """Describe an error and all errors behind it, by the first line of each."""
    lines = [
        f"{type(e).__name__}: {str(e).strip() or 'no message'}".splitlines()[0] for e in error_chain(error)
    ]
    return "; caused by ".join(lines)


@contextlib.contextmanager
def forked(
    device: torch.device, branches: Sequence[torch.cuda.Stream]
) -> Iterator[Callable[..., AbstractContextManager[torch.cuda.Stream | None]]]:
    """Yield `branch`, whose `with` blocks run in parallel, so that in a recording nothing waits for what it does not
    need. Each block starts from what the main stream has done so far; all are joined at the end, and the tensors they
    read are kept until then. Without branches, blocks run one after another."""
    if not branches:
        yield lambda *read: nullcontext()
        return
    main, free = torch.cuda.current_stream(device), iter(branches)
    used: list[tuple[Any, ...]] = []

    @contextlib.contextmanager
    def branch(*read: Any) -> Iterator[torch.cuda.Stream]:
        stream = next(free)
        stream.wait_stream(main)
        used.append((stream, read))
        with torch.cuda.stream(stream):
            yield stream

    yield branch
    for stream, _ in used:
        main.wait_stream(stream)


def checked_capture(body: Body, changed: Sequence[Tensor], record: Callable[[Body], Body]) -> Body:
    """Record `body`, a function of tensors that keep their memory, after trial steps, and check that the recording does
    something. `changed` holds every tensor it changes; all are restored at the end, even after an error. `record`
    calls a function once and returns a function that does the same again.

    Raises:
        CaptureError: a tensor that a trial step changed stayed unchanged: the recording is empty, or of something else.
    """
    kept = [tensor.detach().clone() for tensor in changed]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value in zip(changed, kept, strict=True):
                tensor.copy_(value)

    def moved() -> list[bool]:
        return [not torch.equal(tensor, value) for tensor, value in zip(changed, kept, strict=True)]

    try:
        for _ in range(TRIALS):  # each starts where the first did: no batch follows a short last one
            restore()
            body()
        expected = moved()
        restore()
        replay = record(body)
        restore()
        replay()
        still = sum(should and not does for should, does in zip(expected, moved(), strict=True))
    finally:
        restore()
    if still:
        raise CaptureError(f"the recorded step left {still} of {sum(expected)} tensors as they were")
    return replay


def cuda_graph(body: Body, changed: Sequence[Tensor]) -> Body:
    """Record `body` as a CUDA graph on the device of the tensors; see `checked_capture`.

    Raises:
        torch.OutOfMemoryError: lack of memory; nothing is added to `failures`.
        CaptureError: anything else, with its causes; it is added to `failures`, after which nothing more is recorded.
    """
    device = changed[0].device
    recorder, *_ = streams(device, 0)
    try:
        with device_guard(device):
            recorder.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(recorder):
                replay = checked_capture(body, changed, lambda b: _record(b, device))
            torch.cuda.current_stream(device).wait_stream(recorder)
            torch.cuda.synchronize(device)
    except Exception as error:
        if out_of_memory(error):
            raise torch.OutOfMemoryError(describe_error(error)) from error
        failures.append(describe_error(error))
        raise CaptureError(failures[-1]) from error
    return replay


def _record(body: Body, device: torch.device) -> Body:
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    torch.cuda.synchronize(device)
    gc.collect()
    torch.cuda.empty_cache()
    # Other threads may use CUDA meanwhile; only what this thread does must be fit for a recording.
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        body()
    except BaseException as error:
        try:  # torch's own context manager would replace this error by that of ending the capture
            graph.capture_end()
        except RuntimeError as ending:
            error.add_note(f"ending the recording: {str(ending).splitlines()[0]}")
            # Before torch 2.12 the allocator goes on as if the recording were still in progress, and frees nothing any
            # more; later versions have ended it themselves, and raise an error that says so.
            with contextlib.suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(device.index, pool)
        raise
    graph.capture_end()

    def replay() -> None:
        with device_guard(device):
            graph.replay()

    return replay
