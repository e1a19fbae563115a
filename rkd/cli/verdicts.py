"""`rkd verdicts`: the declared claims, and what the evidence of each grade says about them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from rkd import paths
from rkd.errors import ConfigError, unknown
from rkd.experiments.settings import profile_path
from rkd.judge import GRADES, KINDS, VERDICTS, Assessment, Evaluation, assess
from rkd.judge.decide import NOT_RUN
from rkd.report import verdict_text as text

NO_GRADE_A = {
    "smoke": "are a self-test and never evidence", "mini": "are of a subset and never evidence",
    "short": "are of grade C whatever is given",
}  # fmt: skip
Shown = Sequence[tuple[Assessment, Evaluation]]  # with the evaluation that is shown for the claim


def verdicts(
    *,
    grade: str | None = None,
    chapter: str | None = None,
    kind: str | None = None,
    verdict: str | None = None,
    profile: str = "paper",
    why: bool = False,
    csv: bool = False,
) -> int:
    """Judge the declared claims (params/claims.csv) by the best evidence there is: A runs in the published setting,
    B runs that others measured, C short runs, D printed numbers alone. How many claims have evidence of which grade,
    how many of each kind have which verdict, and the list. Nothing is trained.

    Args:
        grade: only what A, B, C or D says by itself
        chapter: only claims that lines of this chapter answer
        kind: only value, order, effect, trend, bound or chance
        verdict: only claims with this verdict, such as 'not run' or, in the words of its grade, 'does not follow'
        profile: whose records are of grade A: paper, or the path of a profile with, say, more seeds (default paper)
        why: the reason under each claim
        csv: as CSV, all figures

    Examples:
        rkd verdicts
        rkd verdicts --grade B --why
        rkd verdicts --chapter table3 --why
        rkd verdicts --kind value --verdict inconclusive
        rkd verdicts --csv > verdicts.csv

        Exit status: 0, whatever the verdicts are; 2 wrong call, or a declaration or record that cannot be read.
    """
    if why_not := NO_GRADE_A.get(Path(profile).stem):
        raise ConfigError(f"--profile is {Path(profile).stem}, whose runs {why_not}; leave it out")
    words = dict.fromkeys((*VERDICTS, *(word for each in GRADES.values() for word in each.says.values())))
    for name, given, allowed in (
        ("grade", grade, GRADES),
        ("kind", kind, KINDS),
        ("verdict", verdict, words),
    ):
        if given is not None and given not in allowed:
            raise unknown(name, given, allowed)
    if chapter is not None:
        from rkd.experiments.chapters import get_chapter  # imports torch

        get_chapter(chapter)
    shown = []
    for a in assess(profile=profile):
        if chapter in (None, *a.claim.chapters) and kind in (None, a.claim.kind):
            found = [a.found[grade]] if grade else text.with_evidence(a) or [a.best]
            if verdict is not None:
                found = [e for e in found if verdict in (e.verdict, e.wording)]
            elif grade:  # only claims with evidence of this grade
                found = [e for e in found if e.verdict != NOT_RUN]
            shown += [(a, e) for e in found[:1]]
    print(_csv(shown) if csv else _listed(shown, profile, why), end="")
    return 0


def _listed(shown: Shown, profile: str, explained: bool) -> str:
    assessments, found = [a for a, _ in shown], [e for _, e in shown]
    lines = []
    for grade, about in GRADES.items():
        members = text.of_grade(assessments, grade)
        said = ", ".join(f"{n} {about.wording(v)}" for v, n in text.tally(members).items())
        lines.append(f"{grade} {about.name:18}{len(members):4}  {said}".rstrip())
    nothing = sum(not a.grade for a in assessments)
    lines += [f"{'no evidence yet':20}{nothing:4}", f"{'all claims':20}{len(shown):4}", ""]
    for kind in KINDS:
        if members := [e for e in found if e.claim.kind == kind]:
            marked = ", ".join(f"{n} {words}" for words, n in Counter(map(_marked, members)).most_common())
            lines.append(f"{kind:20}{len(members):4}  {marked}")
    lines.append("")
    width = max((len(_marked(e)) for e in found), default=0)
    for e in found:
        figure = text.estimate_text(e.last, e.claim, e.grade)
        lines.append(f"{_marked(e):{width}}  {e.claim.statement}{f'  [{figure}]' if figure else ''}")
        if explained:
            lines.append(
                f"{'':{width}}  {' '.join(filter(None, (text.reason(e.last), text.arithmetic_sentence(e))))}"
            )
    if missing := text.runs_missing(assessments):
        path = profile_path(profile)
        path = path.relative_to(paths.home()) if path.is_relative_to(paths.home()) else path
        runs = text.plural(missing, "run")
        lines += ["", f"for grade A {runs} are missing, teachers included: rkd sweep {quote(str(path))}"]
    return "\n".join(lines) + "\n"


def _marked(found: Evaluation) -> str:
    return f"[{found.grade}] {found.wording}" if found.verdict != NOT_RUN else f"[-] {NOT_RUN}"


def _csv(shown: Shown) -> str:
    import pandas as pd  # the list does without it

    rows = []
    for a, e in shown:
        claim, last = e.claim, e.last
        row = {
            "id": claim.id, "kind": claim.kind, "chapter": claim.chapter, "who": claim.who, "table": claim.table,
            "row": claim.row, "statement": claim.statement, "published": claim.printed, "margin": claim.margin,
            "family": claim.family, "grade": "" if e.verdict == NOT_RUN else e.grade, "verdict": e.wording,
        }  # fmt: skip
        for grade, found in a.found.items():
            row |= {
                f"verdict_{grade}": found.wording, f"estimate_{grade}": found.last.estimate,
                f"low_{grade}": found.last.interval[0], f"high_{grade}": found.last.interval[1],
                f"n_{grade}": " ".join(map(str, found.last.n)),
            }  # fmt: skip
        rows.append(row | {
            "level": last.level, "p": last.p, "p_holm": last.p_holm, "verdict_by_best_epoch": e.best.verdict,
            "optimism": e.optimism, "arithmetics": e.arithmetics, "left_out": e.left_out,
            "missing_runs": len(a.found["A"].missing), "more_seeds": last.more_seeds, "why": last.sentence,
            "records": " ".join(e.records),
        })  # fmt: skip
    return pd.DataFrame(rows).to_csv(index=False)
