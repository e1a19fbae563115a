"""Steps as CUDA graphs: trial steps, the recording, its proof, and what is left of a recording that failed.

Nothing here runs on a CPU but `captured` itself, which takes what records as an argument.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from rkd.errors import RkdError

Body = Callable[[], None]
Capture = Callable[[Body, Sequence[Tensor], Sequence[Sequence[Tensor]]], Body]

TRIALS = 3  # kernels are chosen, and compiled, before a recording: what allocates or asks the host must not be in it
MOST_STREAMS = 32  # of torch's pool; a 33rd would be one of the first again

# Streams by device, made once: torch hands out those of its pool in turn, so that streams made anew for every group
# would meet those of others, and the one that records.
_streams: dict[torch.device, list[torch.cuda.Stream]] = {}
# Why a recording failed, once one has: what CUDA and its allocator hold is in doubt then, and none is tried again.
_failures: list[str] = []


class CaptureError(RkdError):
    """A step could not be recorded as a CUDA graph, or its recording does nothing."""


def failure() -> str | None:
    """Why a recording failed in this process, after which none is tried; None: none has."""
    return _failures[0] if _failures else None


def on(device: torch.device) -> AbstractContextManager[object]:
    """`device` as the current one: streams and graphs belong to whichever is current."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def streams(device: torch.device, count: int) -> list[torch.cuda.Stream]:
    """The same streams for everyone: the first one records, all further ones are branches. Of more branches than there
    are streams, some follow one another."""
    made = _streams.setdefault(device, [])
    while len(made) < min(count + 1, MOST_STREAMS):
        made.append(torch.cuda.Stream(device))
    branches = made[1:]
    return [made[0], *(branches[i % len(branches)] for i in range(count))]


def causes(error: BaseException) -> list[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one behind it, is a lack of device memory (cuDNN and cuBLAS have words of their own)."""
    return any(
        isinstance(e, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(e) or "out of memory" in str(e)
        for e in causes(error)
    )


def told(error: BaseException) -> str:
    """An error and all behind it, one line each."""
    lines = [f"{type(e).__name__}: {str(e).strip() or 'no message'}".splitlines()[0] for e in causes(error)]
    return "; caused by ".join(lines)


def captured(
    body: Body, changed: Sequence[Tensor], moving: Sequence[Sequence[Tensor]], record: Callable[[Body], Body]
) -> Body:
    """Record `body` after trial steps, and prove that the recording does something.

    Args:
        body: a function of tensors that stay where they are.
        changed: every tensor it changes. All of them are as before when this returns, also after an error.
        moving: groups of tensors; of each group, one at least changes whenever `body` runs.
        record: calls a function once and returns what does the same again.

    Raises:
        CaptureError: a group did not move: the recording is empty, or of something else.
    """
    kept = [tensor.detach().clone() for tensor in changed]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value in zip(changed, kept, strict=True):
                tensor.copy_(value)

    try:
        for _ in range(TRIALS):  # each begins where the first did: a short last batch has nothing behind it
            body()
            restore()
        replay = record(body)
        restore()
        before = {id(tensor): value for tensor, value in zip(changed, kept, strict=True)}
        replay()
        still = [group for group in moving if all(torch.equal(t, before[id(t)]) for t in group)]
    finally:
        restore()
    if still:
        raise CaptureError(
            f"the recorded step left {len(still)} of {len(moving)} groups of tensors as they were"
        )
    return replay


def cuda_graph(body: Body, changed: Sequence[Tensor], moving: Sequence[Sequence[Tensor]]) -> Body:
    """`captured` as a CUDA graph, on the device of the tensors.

    Raises:
        torch.OutOfMemoryError: lack of memory, as it is.
        CaptureError: anything else, with its causes; `failure` tells of it from then on, and no more is recorded.
    """
    device = changed[0].device
    recorder, *_ = streams(device, 0)
    try:
        with on(device):
            recorder.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(recorder):
                replay = captured(body, changed, moving, lambda b: _record(b, device))
            torch.cuda.current_stream(device).wait_stream(recorder)
            torch.cuda.synchronize(device)
    except Exception as error:
        if out_of_memory(error):
            raise torch.OutOfMemoryError(told(error)) from error
        _failures.append(told(error))
        raise CaptureError(told(error)) from error
    return replay


def _record(body: Body, device: torch.device) -> Body:
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    torch.cuda.synchronize(device)
    gc.collect()
    torch.cuda.empty_cache()
    # Other threads may use CUDA meanwhile; only what this one does must be fit for a recording.
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    with _ended_after_errors(graph, pool, device):
        body()
    graph.capture_end()

    def replay() -> None:
        with on(device):
            graph.replay()

    return replay


@contextlib.contextmanager
def _ended_after_errors(
    graph: torch.cuda.CUDAGraph, pool: tuple[int, int], device: torch.device
) -> Iterator[None]:
    """End a recording that an error has broken, and let the error through. torch's own context manager would put the
    error of ending it in its place."""
    try:
        yield
    except BaseException as error:
        try:
            graph.capture_end()
        except RuntimeError as ending:
            error.add_note(f"ending the recording: {str(ending).splitlines()[0]}")
            # Before torch 2.12 the allocator goes on as if the recording were under way, and frees nothing any more;
            # later ones have ended it themselves, and say so.
            with contextlib.suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(device.index, pool)
        raise
