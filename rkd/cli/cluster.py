"""`rkd cluster`: write a Slurm job, and simulate how long all runs take on a number of GPUs."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rkd.cli.declare import Duration, File, Names
from rkd.cluster.session import Resources, join_cluster
from rkd.cluster.slurm import LEAVE_SECONDS, script
from rkd.errors import ConfigError, unknown
from rkd.experiments.selectors import Selectors
from rkd.experiments.workspace import data_root


def ray_asked(
    engine: str | None, given: dict[str, Any], needs: Mapping[str, Any], refused: Mapping[str, Any]
) -> bool:
    """Whether a command's --engine is ray. If it is a way to launch steps, it is put into `given`.

    Args:
        given: the command's parameters.
        needs: options that require --engine ray, by name.
        refused: options that --engine ray excludes, by name.
    """
    launched = ("auto", "eager", "graph")
    if engine in launched:
        given["engine"] = engine
    elif engine not in (None, "local", "ray"):
        raise unknown("engine", engine, ("local", "ray", *launched))
    for option, value in (refused if engine == "ray" else needs).items():
        if value:
            raise ConfigError(f"{option} {'does not go' if engine == 'ray' else 'goes'} with --engine ray")
    return engine == "ray"


def slurm(
    params: Path = Path("params/paper.yaml"),
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
        params: profile (default params/paper.yaml)
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

    cores = cpus if cpus is not None else 2 * gpus or 8
    for name, value, least in (("gpus", gpus, 0), ("nodes", nodes, 1), ("jobs", jobs, 1), ("cpus", cores, 1)):
        if value < least:
            raise ConfigError(f"--{name} is {value}; it must be >= {least}")
    if time <= 2 * LEAVE_SECONDS:
        raise ConfigError(
            f"--time is {time:g} s; a job must be longer than {2 * LEAVE_SECONDS // 60} minutes"
        )
    words = ["rkd", "sweep", str(params), *shlex.split(sweep)]
    told = vars(parse(words[1:]))  # report a wrong option now, not in the queue
    if own := {"engine", "address", "budget", "device"} & told.keys():
        raise ConfigError(f"--sweep {sweep!r}: the job itself says --{min(own)}")
    made = script(
        words, nodes=nodes, gpus=gpus, cpus=cores, seconds=time, jobs=jobs, folder=str(Path.cwd()),
        python=sys.executable,
    )  # fmt: skip
    print(made, end="")
    return 0


def plan(
    params: Path = Path("params/paper.yaml"),
    *,
    chapters: Names | None = None,
    gpus: Names = ("1", "8", "64"),
    group: int = 8,
    rate: float | None = None,
    tasks: int | None = None,
    out: File | None = None,
    **given: Any,
) -> int:
    """Simulate a sweep of all runs of a profile, none of them recorded, on so many GPUs: how long it takes, which share
    of their time GPUs wait, what the longest chain of teacher and students is, and what the storage carries.

    Args:
        params: profile (default params/paper.yaml)
        chapters: chapters whose runs to plan (default: all)
        gpus: numbers of GPUs (default 1,8,64)
        group: most runs in lock-step (default 8)
        rate: multiply-adds per second of one GPU, as 2e13 (default: median of the recorded runs, whatever the device)
        tasks: measure Ray too, with so many empty tasks on this machine
        out: write the plan, for the book

    Examples:
        rkd cluster plan params/paper.yaml
        rkd cluster plan params/paper.yaml --rate 2e13 --gpus 1,4,16
        rkd cluster plan params/paper.yaml --tasks 10000 --out results/bench/plan.json
    """
    from rkd.bench import save
    from rkd.cluster import planning

    if not all(number.isdecimal() and 0 < int(number) < 10**5 for number in gpus):
        raise ConfigError(f"--gpus is {','.join(gpus)}; it must be whole numbers from 1 to 99999")
    for name, value in {"group": group, "rate": rate, "tasks": tasks}.items():
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name} is {value:g}; it must be more than 0")
    settings, runs = Selectors(str(params), given, settled=True).plan(chapters)
    measured = None
    if tasks:
        with join_cluster(None, Resources(memory=0), "cpu") as cluster:
            measured = planning.measure_overhead(cluster.ray, tasks)
            each = f"{1000 * measured[1] / tasks:.2f} ms each"
            print(f"{tasks:,} empty tasks on {cluster.describe()}: {measured[1]:.1f} s, {each}")
    made = planning.plan_sweep(settings.profile, runs, group, data_root(settings), rate, measured)
    total = sum(one.macs for one in made.groups)
    print(f"{len(runs)} runs in {len(made.groups)} groups: {total:.3g} multiply-adds")
    print(f"at {made.rate:.3g} a second ({made.source}):")
    print(
        planning.schedule_table([planning.simulate(made, int(number)) for number in gpus]).to_string(
            index=False
        )
    )
    if out:
        save(out, made)
    return 0
