"""All methods on one pair."""

from rkd import claims
from rkd.experiments.chapters.ablation import pair_context
from rkd.experiments.chapters.base import Line, Published, chapter, published, same_network
from rkd.experiments.chapters.cells import method_label, printed
from rkd.experiments.recipes import Builder
from rkd.methods import method_names

PUBLISHED_PAIR = ("resnet56", "resnet20")  # most sources print their values for it
SUMS = ("at+kd", "crd+kd", "reviewkd+kd")


@chapter(
    title="All methods on one pair",
    claim="""Each method was published with gains of its own, on pairs, recipes and teachers of its own. In the one
large table that a single code made, RepDistiller's, most methods came out below plain KD on most pairs.""",
    reading="""Every method, and three sums of methods, on *one* pair, with one teacher, one recipe and one budget, each
with the weight its authors or the benchmark's scripts give it. No weight was tuned for this pair: the order is one of
defaults, not of ideas. And the weights are meant for 240 epochs: in a short profile, losses that are still large when
it ends (those of CRD, FT and SemCKD) hold a student back more than they teach it. The cards say what each method
compares.""",
    recipe="crd",
)
def methods(builder: Builder) -> list[Line]:
    s = builder.settings
    lines = pair_context(builder)
    names = s.methods or (*method_names(), *SUMS)
    pair = s.teacher, s.student
    if not any(_said(method, *pair) for method in names):  # as in the ablations, the page says so
        pair = PUBLISHED_PAIR
    for method in names:
        runs = tuple(builder.distilled(s.teacher, s.student, seed, method) for seed in s.seeds)
        note = "published under the recipe of its own code" if method == "reviewkd" else ""
        if given := builder.given(method):
            note = f"here with {', '.join(f'{name} {value}' for name, value in given.items())}"
        lines.append(Line(method, method_label(method), runs, published=_said(method, *pair), note=note))
    return lines


def _said(method: str, teacher: str, student: str) -> tuple[Published, ...]:
    """What the sources print of a method on this pair, whatever their recipe."""
    if method != "reviewkd":
        return printed(method_label(method), teacher, student, claims.SOURCES)
    rows = claims.load(source="re_paper", method="ReviewKD", variant="reproduction")
    pair = {
        (row.teacher, row.student)
        for row in rows.itertuples()
        if same_network(row.teacher, teacher) and same_network(row.student, student)
    }
    return tuple(
        value
        for ours, theirs in sorted(pair)
        for value in published(
            source="re_paper", method="ReviewKD", variant="reproduction", teacher=ours, student=theirs
        )
    )
