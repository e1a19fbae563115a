"""`rkd verdicts`: the declared claims, judged by the recorded runs."""


def verdicts(
    *,
    chapter: str | None = None,
    kind: str | None = None,
    verdict: str | None = None,
    profile: str = "paper",
    why: bool = False,
    csv: bool = False,
) -> int:
    """Evaluate the declared claims (params/claims.csv) by the recorded runs of the published setting: how many
    claims of each kind have which verdict, and the list. Nothing is trained.

    Args:
        chapter: only claims that lines of this chapter answer
        kind: only value, order, effect, trend, bound or chance
        verdict: only claims with this verdict, such as 'not run'
        profile: whose records: paper, or the path of a profile with, say, more seeds (default paper)
        why: the reason under each claim
        csv: as CSV, all figures

    Examples:
        rkd verdicts
        rkd verdicts --chapter table3 --why
        rkd verdicts --kind value --verdict inconclusive
        rkd verdicts --csv > verdicts.csv

        Exit status: 0, whatever the verdicts are; 2 wrong call, or a declaration or record that cannot be read.
    """
    from rkd.errors import unknown
    from rkd.judge import KINDS, VERDICTS, evaluate

    for name, given, allowed in (("kind", kind, KINDS), ("verdict", verdict, VERDICTS)):
        if given is not None and given not in allowed:
            raise unknown(name, given, allowed)
    if chapter is not None:
        from rkd.experiments.chapters import get_chapter  # with torch

        get_chapter(chapter)
    found = [
        e
        for e in evaluate(profile)
        if chapter in (None, *e.claim.chapters)
        and kind in (None, e.claim.kind)
        and verdict in (None, e.verdict)
    ]
    print(_csv(found) if csv else _listed(found, profile, why), end="")
    return 0


def _listed(evaluations, profile: str, explained: bool) -> str:
    from rkd import paths
    from rkd.experiments.settings import profile_path
    from rkd.judge import KINDS
    from rkd.report import verdict_text as text

    lines = []
    for kind in KINDS:
        members = [e for e in evaluations if e.claim.kind == kind]
        if members:
            found = ", ".join(f"{count} {verdict}" for verdict, count in text.tally(members).items())
            lines.append(f"{kind:8}{len(members):4}  {found}")
    lines += [f"{'all':8}{len(evaluations):4}  {text.judged(evaluations)} judged", ""]
    width = max((len(e.verdict) for e in evaluations), default=0)
    for e in evaluations:
        found = text.measured(e.last, e.claim.kind)
        lines.append(f"{e.verdict:{width}}  {e.claim.statement}{f'  [{found}]' if found else ''}")
        if explained:
            lines.append(f"{'':{width}}  {' '.join(filter(None, (text.why(e.last), text.computed(e))))}")
    missing = text.runs_missing(evaluations)
    if missing:
        path = profile_path(profile)
        path = path.relative_to(paths.home()) if path.is_relative_to(paths.home()) else path
        train = f"rkd sweep {path}"
        lines += ["", f"{text.counted(missing, 'run')} missing, teachers included: {train}"]
    return "\n".join(lines) + "\n"


def _csv(evaluations) -> str:
    import pandas as pd

    rows = [
        {
            "id": e.claim.id, "kind": e.claim.kind, "chapter": e.claim.chapter, "who": e.claim.who,
            "table": e.claim.table, "row": e.claim.row, "statement": e.claim.statement,
            "published": e.claim.printed, "margin": e.claim.margin, "family": e.claim.family,
            "verdict": e.verdict, "estimate": e.last.estimate, "low": e.last.interval[0], "high": e.last.interval[1],
            "level": e.last.level, "p": e.last.p, "p_holm": e.last.p_holm, "n": " ".join(map(str, e.last.n)),
            "verdict_by_best_epoch": e.best.verdict, "optimism": e.optimism, "arithmetics": e.arithmetics,
            "left_out": e.left_out, "missing_runs": len(e.missing),
            "more_seeds": e.last.more_seeds, "why": e.last.sentence, "records": " ".join(e.records),
        }
        for e in evaluations
    ]  # fmt: skip
    return pd.DataFrame(rows).to_csv(index=False)
