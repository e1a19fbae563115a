"""A Slurm job that starts Ray on its nodes and sweeps until its time is up; an array repeats it."""

import math
import shlex
from collections.abc import Sequence

LEAVE_SECONDS = 300  # set aside for Ray to start, and for the sweep to save and end
WARN_SECONDS = 120  # the job gets SIGTERM this long before its time is up, or when it is preempted


def script(
    sweep: Sequence[str],
    *,
    nodes: int,
    gpus: int,
    cpus: int,
    seconds: float,
    jobs: int,
    folder: str,
    python: str,
) -> str:
    """Return a job script for sbatch.

    Args:
        sweep: the words of an `rkd sweep` call, without engine, address and budget.
        nodes, gpus, cpus: number of nodes of a job; GPUs and cores of each node.
        seconds: a job's time limit, more than `LEAVE_SECONDS`.
        jobs: how many follow one another in an array, each for `seconds`; one that finds nothing left ends at once.
        folder, python: the job's working directory, and the interpreter for which rkd is installed, on all nodes.
    """
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    array = f"#SBATCH --array=1-{jobs}%1\n" if jobs > 1 else ""
    card = f"#SBATCH --gpus-per-node={gpus}\n" if gpus else ""
    log = "%x-%A_%a" if jobs > 1 else "%x-%j"
    budget, device = f"{int(seconds) - LEAVE_SECONDS}s", ["--device", "cuda"] if gpus else []
    call = shlex.join([python, "-m", *sweep, "--engine", "ray", "--budget", budget, *device])
    takes = f"--num-cpus={cpus}", f"--num-gpus={gpus}"
    ray = shlex.join([python, "-m", "ray.scripts.scripts", "start", *takes])
    return f"""#!/bin/bash
#SBATCH --job-name=rkd
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={cpus}
{card}#SBATCH --time={hours}:{minutes:02d}:00
{array}#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@{WARN_SECONDS}
#SBATCH --output={log}.log
set -uo pipefail
cd {shlex.quote(folder)} || exit 2
export RAY_USAGE_STATS_ENABLED=0 RAY_raylet_start_wait_time_s=120 RAY_AUTH_TOKEN_PATH="$PWD/.ray-$SLURM_JOB_ID"
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' > "$RAY_AUTH_TOKEN_PATH")

# Ray: its head here, where this script runs, and a worker on every other node. All of it ends with the job.
head=$SLURMD_NODENAME
port=$((20000 + SLURM_JOB_ID % 20000))
others=$((SLURM_JOB_NUM_NODES - 1))
{ray} --head --port="$port" --disable-usage-stats --include-dashboard=false || exit 1
if [ "$others" -gt 0 ]; then
  srun --nodes="$others" --ntasks="$others" --exclude="$head" {ray} --address="$head:$port" --block &
fi

# The sweep ends by itself shortly before the time is up. At SIGTERM (preemption) it saves, and the job is queued again.
warned=0
{call} --address "$head:$port" &
sweep=$!
trap 'warned=1; kill -TERM "$sweep"' TERM
wait "$sweep"
status=$?
if [ "$warned" = 1 ]; then
  wait "$sweep"
  status=$?
  [ "$status" = 1 ] && scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""
