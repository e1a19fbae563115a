"""The job for Slurm: bash and shellcheck read it, and it does what it should where Slurm and Python are stand-ins."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rkd.cluster.slurm import script

# Notes its words; a sweep that is to be told waits for SIGTERM, and then has runs left.
STAND_IN = """#!/bin/bash
trap 'exit 1' TERM
echo "$(basename "$0") $*" >> "$CALLS"
while [ -n "${SWEEPS:-}" ] && [[ "$*" == *sweep* ]]; do sleep 0.05; done
"""
SWEEP = ["rkd", "sweep", "params/a b.yaml"]


@pytest.mark.parametrize(
    "options", ["--gpus 4 --nodes 2 --jobs 3 --sweep '--chapters table3'", "--gpus 0", ""]
)
def test_the_script_is_sound(done, options, tmp_path):
    job = tmp_path / "job.sh"
    job.write_text(done(f"cluster slurm 'params/it is.yaml' --time 4h {options}"))
    subprocess.run(["bash", "-n", job], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", job], check=True)
    text = job.read_text()
    assert "rkd sweep params/paper.yaml --engine ray" in done("cluster slurm --time 4h"), "none is named"
    assert "#SBATCH --time=4:00:00\n" in text and "--requeue\n" in text and "--budget 14100s" in text
    assert ("--gpus-per-node=4\n" in text, "--array=1-3%1\n" in text) == ("4" in options,) * 2
    assert ("--device cuda" in text) == ("gpus 0" not in options)


def dry(tmp_path, nodes=2, **more):
    """The job, running where all commands are stand-ins."""
    for name in ("python", "srun", "scontrol"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    size = {"nodes": nodes, "gpus": 4, "cpus": 8, "seconds": 3600, "jobs": 1}
    text = script(SWEEP, **size, folder=str(tmp_path), python=f"{tmp_path}/python")
    (tmp_path / "job.sh").write_text(text)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": str(nodes), "SLURMD_NODENAME": "n1"}
    found = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": f"{tmp_path}/calls"}
    return subprocess.Popen(["bash", tmp_path / "job.sh"], env={**os.environ, **found, **slurm, **more})


def calls(tmp_path):
    file = tmp_path / "calls"
    return file.read_text().splitlines() if file.exists() else []


def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "not in 20 seconds"
        time.sleep(0.05)


def catches_sigterm(job):
    """Linux tells the signals that a process catches as a mask in hexadecimal."""
    status = Path(f"/proc/{job.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> signal.SIGTERM - 1 & 1)


def test_ray_starts_on_all_nodes_before_the_sweep(tmp_path):
    assert dry(tmp_path).wait(20) == 0
    # The job does not wait for the workers, and so may end before.
    until(lambda: "srun" in str(calls(tmp_path)))
    head, *rest = calls(tmp_path)
    start = "python -m ray.scripts.scripts start --num-cpus=8 --num-gpus=4"
    assert head.startswith(f"{start} --head --port=20007")
    sweep = "python -m rkd sweep params/a b.yaml --engine ray --budget 3300s --device cuda --address n1:20007"
    assert sweep in rest and not list(tmp_path.glob(".ray-*")), "the cluster's token goes with the job"
    assert f"srun --nodes=1 --ntasks=1 --exclude=n1 {tmp_path}/{start} --address=n1:20007 --block" in rest


def test_a_warned_job_waits_for_the_sweep_and_is_queued_again(tmp_path):
    job = dry(tmp_path, 1, SWEEPS="1")
    until(lambda: "sweep" in str(calls(tmp_path)))
    until(lambda: catches_sigterm(job))
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 1 and calls(tmp_path)[-1] == "scontrol requeue 7"
    assert not any(call.startswith("srun") for call in calls(tmp_path))
