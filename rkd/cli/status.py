from typing import Any

from rkd.cli.declare import Names

STATES = ("recorded", "diverged", "running", "begun", "missing")


def status(
    *, chapters: Names | None = None, verbose: bool = False, profile: str = "smoke", **given: Any
) -> int:
    """List the runs a profile's chapters need: recorded, running now, partly trained, or missing; and how long the
    rest will take on this machine.

    Args:
        chapters: chapters to look at (default: all)
        verbose: one line per run
        profile: smoke, mini, short, paper, or the path of a YAML file like those in params/ (default smoke)

    Examples:
        rkd status
        rkd status --profile paper --chapters table3 --verbose

        The time left is what one process takes, loading and compiling aside, at the rates of the runs recorded on
        this device; `rkd sweep` with the same chapters and settings trains what is left.
    """
    from rkd.experiments.runner import required
    from rkd.experiments.selectors import Selectors
    from rkd.experiments.workspace import store_of

    settings, found = Selectors(profile, given, settled=True).plan(chapters)
    store = store_of(settings)
    runs = required(run for configs in found.values() for run in configs)
    states = {run.id: state_of(store, run) for run in runs}
    if verbose:
        for run in runs:
            print(f"{states[run.id]:9} {run.id}  {describe(run)}{_result(store, run, states[run.id])}")
    print(f"{'chapter':18}" + "".join(f"{name:>10}" for name in STATES))
    for name, configs in found.items():
        own = {run.id for run in required(configs)}
        print(f"{name:18}" + "".join(f"{sum(states[i] == state for i in own):>10}" for state in STATES))
    everything = list(states.values())
    print(f"{'all, each once':18}" + "".join(f"{everything.count(state):>10}" for state in STATES))
    print(f"records: {store.records}")
    print(f"time left: {_time_left(runs, settings, store)}")
    return 0


def state_of(store, run) -> str:
    """One of STATES: "running" is a run that a process is training now, "begun" one that has a checkpoint."""
    if store.has(run.id):
        record = store.load(run.id)
        return "recorded" if record.status == "finished" else record.status
    if store.running(run.id):
        return "running"
    return "begun" if (store.folder(run.id) / "checkpoint.pt").exists() else "missing"


def time_left(runs, settings, store, group: int = 8, measured=()):
    """The estimate for what is left of `runs` on the device the settings choose, by records or measured samples."""
    from rkd.experiments.estimate import estimate
    from rkd.experiments.runner import pick_device
    from rkd.experiments.workspace import data_root
    from rkd.records.provenance import machine_state
    from rkd.training import threads

    device = pick_device(settings.device)
    return estimate(
        runs,
        store,
        machine_state(device)["device_name"],
        device=device.type,
        threads=threads.fixed(settings.threads, device),
        group=group,
        compiled=settings.compile,
        data_root=data_root(settings),
        measured=measured,
    )


def _time_left(runs, settings, store):
    """The same, or why it is unknown: what is recorded can be listed on a machine without the device."""
    from rkd.errors import ConfigError

    try:
        return time_left(runs, settings, store)
    except ConfigError as error:
        return f"unknown here: {error}"


def progress_of(store, run) -> str:
    """How far a run that is not recorded is, in words."""
    from rkd.experiments.estimate import begun

    reached = begun(store, run.id)
    if reached is None:
        return f"epoch 0 of {run.total_epochs}"
    partly = f" and {reached.position:,} images" if reached.position else ""
    return f"epoch {reached.epoch} of {run.total_epochs}{partly}"


def describe(run) -> str:
    """One run in words."""
    from rkd.models import display_name

    words = display_name(run.network)
    if run.teacher is not None:
        words += f" <- {display_name(run.teacher.name)}, {run.method}"
        if run.method == "reviewkd":
            o = run.options
            words += f" ({o.connector}, {o.loss}, attention {'on' if o.attention else 'off'}, weight {o.loss_weight:g})"
    return f"{words}, seed {run.seed}, {run.epochs} epochs of {run.data.name}"


def _result(store, run, state: str) -> str:
    if state in ("begun", "running"):
        return f"  {progress_of(store, run)}"
    return f"  {store.load(run.id).accuracy():.2f} %" if store.has(run.id) else ""
