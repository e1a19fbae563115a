"""Table 1: teacher and student of the same style."""

from rkd import claims
from rkd.errors import ConfigError
from rkd.experiments.chapters.base import Line, chapter, context_lines, published, same_network
from rkd.experiments.recipes import Builder
from rkd.models import canonical, display_name

PAIRS = (
    ("resnet56", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
)


def pair_lines(builder: Builder, table: str, default: tuple[tuple[str, str], ...]) -> list[Line]:
    """Teacher, student alone and ReviewKD student for each pair."""
    lines: list[Line] = []
    pairs = builder.settings.pairs or default
    teachers = {teacher for teacher, _ in pairs}
    if builder.settings.teacher_checkpoint is not None and len(teachers) > 1:
        raise ConfigError(
            f"teacher_checkpoint is one file, but the pairs name {len(teachers)} teachers; give pairs of one teacher"
        )
    for teacher, student in pairs:
        group = f"{display_name(student)} ← {display_name(teacher)}"
        prefix = f"{canonical(student)}-{canonical(teacher)}-"
        lines += context_lines(builder, teacher, student, group, prefix)
        in_table = published(
            source="re_paper", table=table, method="ReviewKD", **_as_printed(table, teacher, student)
        )
        readme = "same-style" if table == "Table 1" else "different-style"
        in_readme = published(source="re_readme", table=readme, **_as_printed(readme, teacher, student))
        known = {(p.source, p.value) for p in in_table} | {("[Re] README", p.value) for p in in_table}
        lines.append(
            Line(
                f"{prefix}reviewkd",
                f"{display_name(student)} with ReviewKD",
                tuple(builder.review(teacher, student, seed) for seed in builder.settings.seeds),
                group,
                in_table + tuple(p for p in in_readme if (p.source, p.value) not in known),
                f"loss weight {builder.review(teacher, student, 0).options.loss_weight:g}",
            )
        )
    return lines


def _as_printed(table: str, teacher: str, student: str) -> dict[str, str]:
    """The spelling of a pair in a source's table; names that match nothing for a pair it does not have."""
    for row in claims.load(table=table, method="ReviewKD").itertuples():
        if same_network(row.teacher, teacher) and same_network(row.student, student):
            return {"teacher": row.teacher, "student": row.student}
    return {"teacher": teacher, "student": student}


@chapter(
    title="Table 1: teacher and student of the same style",
    claim="""On five pairs of networks of one style, the ReviewKD paper reports that its students end above every
earlier method it quotes; the [Re] report measured them again and finds values within 0.8 points of the paper's.""",
    reading="""In each pair, ReviewKD's mean over seeds against the published values, and how far it lies above the
student trained alone. The quoted baselines were measured with other teachers and another training code, so a gap to
them is weaker evidence than the gap to our own undistilled student.""",
    recipe="authors",
    one_pair=False,
)
def table1(builder: Builder) -> list[Line]:
    return pair_lines(builder, "Table 1", PAIRS)
