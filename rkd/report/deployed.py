"""The table of deployed students: what fusing their branches saves, and that it changes nothing."""

import html
from collections.abc import Iterable

from rkd import models
from rkd.experiments.deploy import DeployReport, deploy_report
from rkd.experiments.runner import Runner
from rkd.report.tables import table_of
from rkd.training.config import RunConfig


def reports(runner: Runner, runs: Iterable[RunConfig]) -> list[DeployReport]:
    """One report per reparameterised network among the runs: of the first run of it whose weights are here."""
    branched = set(models.groups()["reparameterised"])
    found: dict[str, DeployReport] = {}
    for run in runs:
        if run.network in branched and run.network not in found and runner.weights_file(run.id, "last"):
            found[run.network] = deploy_report(runner, run, rounds=5, seconds=0.1)
    return list(found.values())


def deployed_table(found: Iterable[DeployReport]) -> str:
    """Size, multiply-adds, speed and accuracy of each network as trained and as deployed."""
    rows, machine = [], ""
    for report in found:
        before, after = report.trained, report.deployed
        threads = (
            f", {report.threads} thread{'s' if report.threads != 1 else ''}" if report.device == "cpu" else ""
        )
        machine = f"{report.device}{threads}, {report.precision}, batches of {report.batch_size}"
        numbers = [
            f"{before.parameters:,} → {after.parameters:,}",
            f"{before.macs / 1e6:,.1f} → {after.macs / 1e6:,.1f}",
            f"{before.images_per_second:,.0f} → {after.images_per_second:,.0f} (×{report.speedup:.1f})",
            f"{before.accuracy:.2f} → {after.accuracy:.2f}",
            f"{report.changed_predictions} of {report.images:,}",
            f"{report.logit_difference:.1e} of {report.largest_logit:.1f}",
        ]
        name = html.escape(models.display_name(report.network))
        cells = "".join(f"<td>{number}</td>" for number in numbers)
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    if not rows:
        return (
            '<p class="rkd-note">The weights of the reparameterised students are not on this machine; run the chapter '
            "where they were trained, or train them here, to see them fused.</p>"
        )
    heads = [
        "trained → deployed", "parameters", "multiply-adds, millions", "images/s", "accuracy, %",
        "predictions that change", "largest change of a logit",
    ]  # fmt: skip
    note = f'<p class="rkd-note">Speed of inference on {html.escape(machine)}.</p>'
    return table_of(heads, rows, "rkd-deployed") + note
