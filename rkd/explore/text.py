"""The words and tables of the live page, as HTML."""

import math
from collections.abc import Sequence
from html import escape

from rkd import models
from rkd.experiments.budget import in_words
from rkd.explore.choices import BATCH, Figures, Plan, Time
from rkd.explore.saved import Saved
from rkd.explore.training import State
from rkd.records import Record
from rkd.report.tables import scrolling

STYLE = """<style>
.rkd-explore .widget-html-content { line-height: 1.45; }
.rkd-explore h4 { margin: 0.9em 0 0.35em; font-size: 1.08em; }
.rkd-explore p { margin: 0.35em 0; }
.rkd-explore table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.3em 0; }
.rkd-explore th, .rkd-explore td {
  padding: 0.2em 0.75em 0.2em 0; text-align: right; border-bottom: 1px solid #8886; font-weight: 400;
  background: none !important;
}
.rkd-explore th:first-child, .rkd-explore td:first-child { text-align: left; }
.rkd-explore thead th { font-weight: 600; vertical-align: bottom; }
.rkd-explore .rkd-scroll { overflow-x: auto; }
.rkd-explore .rkd-quiet { opacity: 0.75; font-size: 0.92em; }
.rkd-explore .rkd-alert { border-left: 4px solid #D55E00; padding: 0.3em 0.7em; background: #D55E0018; }
.rkd-explore .rkd-good { border-left: 4px solid #009E73; padding: 0.3em 0.7em; background: #009E7318; }
.rkd-explore .rkd-maps { display: grid; gap: 0.3em 0.6em; align-items: end; }
.rkd-explore .rkd-maps > div { min-width: 0; font-size: 0.85em; line-height: 1.25; overflow-wrap: anywhere; }
.rkd-explore .rkd-maps img { display: block; width: 100%; height: auto; image-rendering: pixelated; margin-top: 0.3em; }
.rkd-explore details table { margin: 0.5em 0 1em; }
.rkd-explore caption { text-align: left; font-weight: 600; }
</style>"""


def heading(text: str, note: str = "") -> str:
    """A section's head, and a quiet line below it."""
    return f"<h4>{escape(text)}</h4>" + (f'<p class="rkd-quiet">{escape(note)}</p>' if note else "")


def alert(text: str) -> str:
    """A sentence that has to be seen."""
    return f'<p class="rkd-alert" role="alert">{escape(text)}</p>'


def good(text: str) -> str:
    """A sentence that says that something is done."""
    return f'<p class="rkd-good" role="status">{escape(text)}</p>'


def figures_table(plan: Plan, figures: Figures) -> str:
    """Parameters and multiply-adds of student, teacher and fusion modules."""
    names = (models.display_name(plan.distilled.network), models.display_name(plan.distilled.teacher.name))
    rows = (
        (
            "parameters",
            figures.student_parameters,
            figures.teacher_parameters,
            f"+ {figures.extra_parameters:,}",
        ),
        (
            "multiply-adds per image",
            _millions(figures.student_macs),
            _millions(figures.teacher_macs),
            f"+ {_millions(figures.extra_macs)}",
        ),
    )
    body = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f"<td>{v:,}</td>" if isinstance(v, int) else f"<td>{v}</td>" for v in values)
        + "</tr>"
        for name, *values in rows
    )
    heads = ("", f"student<br>{names[0]}", f"teacher<br>{names[1]}", "fusion modules<br>(training only)")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return scrolling(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def cost(plan: Plan, figures: Figures, time: Time, place: str, download: bool) -> str:
    """Work of a step, number of steps, time here."""
    images = min(BATCH, plan.choices.images)
    lines = [
        f"<p>One step with distillation, on {images} images: <b>{figures.step_macs / 1e9:.2f} G multiply-adds</b>; "
        f"{figures.steps:,} steps in a student's run.</p>"
    ]
    if not time.seconds:
        lines.append("<p>These runs are trained already: <b>Train</b> shows them at once.</p>")
    else:
        each = ", ".join(
            f"{escape(plan.title(run))} {in_words(max(1.0, s))}" for run, s in time.seconds.items()
        )
        lines.append(
            f"<p>Time here ({escape(place)}): <b>{time}</b><span class='rkd-quiet'>: {each}; "
            f"from {escape(time.basis)}</span></p>"
        )
    if download:
        lines.append(
            "<p>The data set is not here yet: it is downloaded first, about 170 MB, which no time above includes.</p>"
        )
    return "".join(lines)


def progress(plan: Plan, state: State) -> str:
    """Where a training stands, in a line."""
    if state.status == "starting":
        return f"Starting a process for the training. {escape(state.note)}"
    if state.status == "failed":
        return alert(f"It failed: {state.note}")
    title = escape(plan.title(state.run)) if state.run else ""
    if state.status == "stopping":
        return f"Stopping after the batch in progress of {title or 'the run'}."
    if state.status == "stopped":
        where = f" in epoch {state.epoch + 1} of {state.epochs} of {title}" if state.run else ""
        return good(
            f"Stopped{where}. Nothing is recorded of an unfinished run; Train goes on from its checkpoint."
        )
    parts = [
        f"Run {state.number} of {state.of}, {title}: epoch {min(state.epoch + 1, state.epochs)} of {state.epochs}"
    ]
    if state.rate:
        parts.append(f"{state.rate:,.0f} images/s")
    if state.seconds_left is not None:
        parts.append(f"{in_words(state.seconds_left)} left")
    return ", ".join(parts) + (f". {escape(state.note)}" if state.note else "")


def outcome(plan: Plan, alone: Record, distilled: Record) -> str:
    """What a finished comparison came to."""
    for run in (alone, distilled):
        if run.status != "finished":
            return alert(f"{plan.title(run.id)} diverged: a loss became infinite or undefined.")
    ours, bare = distilled.accuracy(), alone.accuracy()
    return good(
        f"Done. Test accuracy after the last epoch: {ours:.2f} % with distillation, {bare:.2f} % without "
        f"({_signed(ours - bare)} points). One seed and a short run: a demonstration, no evidence."
    )


def saved_table(saved: Sequence[Saved]) -> str:
    """Kept runs, their names and accuracies."""
    if not saved:
        return '<p class="rkd-quiet">Nothing is saved yet.</p>'
    heads = ("name", "student ← teacher", "run", "with", "without", "difference", "record")
    rows = []
    for run in saved:
        config = run.record.config
        ours = run.record.accuracy()
        bare = math.nan if run.alone is None else run.alone.accuracy()
        pair = " ← ".join(map(models.display_name, (config.network, config.teacher.name)))
        images = "all" if config.data.train_images is None else f"{config.data.train_images:,}"
        what = f"{config.data.name}, {images} images, {config.epochs} epochs, weight {config.options.loss_weight:g}"
        cells = (
            pair,
            what + ("" if config.options.attention else ", no attention"),
            _percent(ours),
            _percent(bare),
            "–" if math.isnan(ours - bare) else _signed(ours - bare),
        )
        rows.append(
            f'<tr><th scope="row">{escape(run.name)}</th>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + f"<td><code>{run.record.id}</code></td></tr>"
        )
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return (
        scrolling(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")
        + '<p class="rkd-quiet">Test accuracy after the last epoch, %, of one seed each.</p>'
    )


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _millions(value: int) -> str:
    return f"{value / 1e6:.1f} M"
