"""What happens on a GPU: how steps are launched, their branches, and their recording as CUDA graphs: trial steps, the
recording, its proof, and what is left of one that failed. Launched otherwise, a step computes the same."""

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

TRIALS = 3  # kernels are chosen, and compiled, before a recording: what allocates or asks the host must not be in it
MOST_STREAMS = 32  # of torch's pool; a 33rd would be one of the first again

# By device, made once for everyone: torch hands out those of its pool in turn, so that streams made anew for every
# group would meet those of others, and the one that records.
_streams: dict[torch.device, list[torch.cuda.Stream]] = {}
# Why a recording failed in this process: what CUDA and its allocator hold is in doubt then, and none is tried again.
failures: list[str] = []


class CaptureError(RkdError):
    """A step could not be recorded as a CUDA graph, or its recording does nothing."""


ENGINES = {"auto": None, "eager": False, "graph": True}


@frozen
class Engine:
    """No part of a run's identity: the mathematics stays the same (sums are rounded in another order).

    Attributes:
        compile: let torch.compile write kernels: for the teacher, and on CUDA for the students too (on a CPU compiled
            students are slower than eager ones, which oneDNN serves well). Needs a C++ compiler, and time for the first
            step: seconds on a CPU, half a minute to two minutes on CUDA.
        graph: capture a step as one CUDA graph; None: on CUDA, and where that fails go on without.
        eager: methods whose steps are not captured all the same (see `experiments.check`).
        threads: that compute on a CPU; "auto" measures how many help, see `training.threads`.
    """

    compile: Flag = False
    graph: Flag | None = None
    eager: frozenset[str] = frozenset()
    threads: CountOrAuto = "auto"

    @classmethod
    def named(cls, engine: str | None, compile: bool = False, threads: int | str = "auto") -> "Engine":
        """By the name of a way to launch steps: "auto" (a CUDA graph on CUDA, kernel by kernel where that fails or on a
        CPU), "eager" (kernel by kernel), "graph" (a CUDA graph or nothing); None: $RKD_ENGINE, else "auto". ConfigError
        for another name."""
        name = os.environ.get("RKD_ENGINE", "auto") if engine is None else engine
        if name not in ENGINES:
            raise unknown("engine", name, ENGINES)
        return cls(compile, ENGINES[name], threads=threads)

    def check(self, device: torch.device) -> None:
        """Raise ConfigError for what this machine cannot do."""
        thread_choices(self.threads, device)
        if self.compile:
            if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
                raise ConfigError(
                    "compile was asked for, but this machine has no C++ compiler (g++ or clang++)"
                )
            # One function serves every make of state and every batch size of a sweep, each with a graph of its own.
            torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 2**16
        if self.graph and device.type != "cuda":
            raise ConfigError(f"a CUDA graph was asked for, but the device is {str(device)!r}")

    def captures(self, device: torch.device, methods: Iterable[str | None] = ()) -> bool:
        """Whether steps, of runs by these methods, are captured on `device`."""
        held_back = self.eager & {part for method in methods for part in (method or "").split("+")}
        return device.type == "cuda" and self.graph is not False and not held_back and not failures

    def cold_seconds(self, device: torch.device) -> float:
        """A generous guess of what the first step of a group takes beyond a step, for those short of time."""
        return 90.0 if self.compile else 15.0 if self.captures(device) else 0.0

    def compiles_students(self, device: torch.device) -> bool:
        """Whether students are compiled on `device`, as well as the teacher."""
        return self.compile and device.type == "cuda"


def device_guard(device: torch.device) -> AbstractContextManager[object]:
    """`device` as the current one: streams and graphs belong to whichever is current."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def streams(device: torch.device, count: int) -> list[torch.cuda.Stream]:
    """The first one records, further ones are branches. Of more branches than there are streams, some follow one
    another."""
    made = _streams.setdefault(device, [])
    while len(made) < min(count + 1, MOST_STREAMS):
        made.append(torch.cuda.Stream(device))
    branches = made[1:]
    return [made[0], *(branches[i % len(branches)] for i in range(count))]


def error_chain(error: BaseException | None) -> list[BaseException]:
    """An error and all behind it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one behind it, is a lack of device memory (cuDNN and cuBLAS have words of their own)."""
    return any(
        isinstance(e, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(e) or "out of memory" in str(e)
        for e in error_chain(error)
    )


def describe_error(error: BaseException) -> str:
    """An error and all behind it, one line each."""
    lines = [
        f"{type(e).__name__}: {str(e).strip() or 'no message'}".splitlines()[0] for e in error_chain(error)
    ]
    return "; caused by ".join(lines)


@contextlib.contextmanager
def forked(
    device: torch.device, branches: Sequence[torch.cuda.Stream]
) -> Iterator[Callable[..., AbstractContextManager[torch.cuda.Stream | None]]]:
    """In a recording nobody waits for what is not needed: gives `branch`, whose blocks run beside each other, each from
    what stood before the fork, and are joined when this ends. Tensors that they read are kept until then. Without
    branches, blocks follow one another."""
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
    """Record `body`, a function of tensors that stay where they are, after trial steps, and prove that the recording
    does something. `changed` is every tensor it changes: all are as before when this ends, also by an error. `record`
    calls a function once and returns what does the same again.

    Raises:
        CaptureError: a tensor stayed as it was that a trial step changed: the recording is empty, or of something else.
    """
    kept = [tensor.detach().clone() for tensor in changed]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value in zip(changed, kept, strict=True):
                tensor.copy_(value)

    def moved() -> list[bool]:
        return [not torch.equal(tensor, value) for tensor, value in zip(changed, kept, strict=True)]

    try:
        for _ in range(TRIALS):  # each begins where the first did: a short last batch has nothing behind it
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
    """`checked_capture` as a CUDA graph, on the device of the tensors.

    Raises:
        torch.OutOfMemoryError: lack of memory, as it is.
        CaptureError: anything else, with its causes; it is one of `failures` from then on, and no more is recorded.
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
    # Other threads may use CUDA meanwhile; only what this one does must be fit for a recording.
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        body()
    except BaseException as error:
        try:  # torch's own context manager would put the error of ending it in its place
            graph.capture_end()
        except RuntimeError as ending:
            error.add_note(f"ending the recording: {str(ending).splitlines()[0]}")
            # Before torch 2.12 the allocator goes on as if the recording were under way, and frees nothing any more;
            # later ones have ended it themselves, and say so.
            with contextlib.suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(device.index, pool)
        raise
    graph.capture_end()

    def replay() -> None:
        with device_guard(device):
            graph.replay()

    return replay
