"""`rkd cluster`: a job for Slurm, and how long all runs take on so many GPUs."""

import shlex
import sys
from pathlib import Path

from rkd.cli.declare import Duration
from rkd.errors import ConfigError


def slurm(
    params: Path,
    *,
    time: Duration,
    gpus: int = 1,
    nodes: int = 1,
    cpus: int | None = None,
    jobs: int = 1,
    sweep: str = "",
) -> int:
    """Write a script for sbatch that starts Ray over the nodes of a job and sweeps until shortly before its time is up.
    A job that is preempted saves and is queued again; several jobs follow one another, and go on where the one before
    ended.

    Args:
        params: profile, for example params/paper.yaml
        time: of a job: 4h, 90m, 1d
        gpus: of a node; 0: none (default 1)
        nodes: of a job (default 1)
        cpus: cores of a node (default: two for each GPU, or 8)
        jobs: that follow one another, as an array (default 1)
        sweep: further options of `rkd sweep`, in quotes

    Examples:
        rkd cluster slurm params/paper.yaml --gpus 4 --time 4h > job.sh && sbatch job.sh
        rkd cluster slurm params/paper.yaml --gpus 8 --nodes 2 --time 12h --jobs 3 --sweep '--chapters table3' > job.sh

        The folder where this is called is where the job works; nodes need it, and this Python, at the same path.
    """
    from rkd.cli import parse
    from rkd.cluster.slurm import LEAVE_SECONDS, script

    cores = cpus if cpus is not None else 2 * gpus or 8
    for name, value, least in (("gpus", gpus, 0), ("nodes", nodes, 1), ("jobs", jobs, 1), ("cpus", cores, 1)):
        if value < least:
            raise ConfigError(f"--{name} is {value}; it must be >= {least}")
    if time <= 2 * LEAVE_SECONDS:
        raise ConfigError(
            f"--time is {time:g} s; a job must be longer than {2 * LEAVE_SECONDS // 60} minutes"
        )
    words = ["rkd", "sweep", str(params), *shlex.split(sweep)]
    told = vars(parse(words[1:]))  # a wrong option is told now, not in the queue
    if own := {"engine", "address", "budget", "device"} & told.keys():
        raise ConfigError(f"--sweep {sweep!r}: the job itself says --{min(own)}")
    print(
        script(
            words, nodes=nodes, gpus=gpus, cpus=cores, seconds=time, jobs=jobs, folder=str(Path.cwd()),
            python=sys.executable,
        ),
        end="",
    )  # fmt: skip
    return 0
