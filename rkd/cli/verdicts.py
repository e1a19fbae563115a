"""Judge the declared claims (params/claims.csv) by the recorded runs of the published setting: how many claims of each
kind have which verdict, and the list. Nothing is trained."""

import argparse

EPILOG = """examples:
  rkd verdicts
  rkd verdicts --chapter table3 --why
  rkd verdicts --kind value --verdict inconclusive
  rkd verdicts --csv > verdicts.csv

Exit status: 0, whatever the verdicts are; 2 wrong call, or a declaration or record that cannot be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chapter", metavar="NAME", help="only claims that lines of this chapter answer")
    parser.add_argument("--kind", metavar="NAME", help="only value, order, effect, trend, bound or chance")
    parser.add_argument("--verdict", metavar="WORDS", help="only claims with this verdict, such as 'not run'")
    parser.add_argument(
        "--profile", default="paper", metavar="NAME",
        help="whose records: paper, or the path of a profile with, say, more seeds (default paper)",
    )  # fmt: skip
    parser.add_argument("--why", action="store_true", help="the reason under each claim")
    parser.add_argument("--csv", action="store_true", help="as CSV, all figures")


def call(options: argparse.Namespace) -> int:
    from rkd.errors import ConfigError, unknown
    from rkd.experiments.chapters import get_chapter

    try:
        from rkd.judge import KINDS, VERDICTS, judge
        from rkd.report import verdict_text  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"verdicts need {error.name}, which is not installed: pip install -e '.[book]'"
        ) from error
    for name, allowed in (("kind", KINDS), ("verdict", VERDICTS)):
        given = getattr(options, name)
        if given is not None and given not in allowed:
            raise unknown(name, given, allowed)
    if options.chapter is not None:
        get_chapter(options.chapter)
    verdicts = [
        v
        for v in judge(options.profile)
        if options.chapter in (None, *v.claim.chapters)
        and options.kind in (None, v.claim.kind)
        and options.verdict in (None, v.verdict)
    ]
    print(_csv(verdicts) if options.csv else _listed(verdicts, options), end="")
    return 0


def _listed(verdicts, options: argparse.Namespace) -> str:
    from rkd import paths
    from rkd.experiments.settings import profile_path
    from rkd.judge import KINDS
    from rkd.report import verdict_text as text

    lines = []
    for kind in KINDS:
        members = [v for v in verdicts if v.claim.kind == kind]
        if members:
            found = ", ".join(f"{count} {verdict}" for verdict, count in text.tally(members).items())
            lines.append(f"{kind:8}{len(members):4}  {found}")
    lines += [f"{'all':8}{len(verdicts):4}  {text.judged(verdicts)} judged", ""]
    width = max((len(v.verdict) for v in verdicts), default=0)
    for v in verdicts:
        found = text.measured(v.last, v.claim.kind)
        lines.append(f"{v.verdict:{width}}  {v.claim.statement}{f'  [{found}]' if found else ''}")
        if options.why:
            lines.append(f"{'':{width}}  {' '.join(filter(None, (text.why(v.last), text.computed(v))))}")
    missing = text.runs_missing(verdicts)
    if missing:
        path = profile_path(options.profile)
        path = path.relative_to(paths.home()) if path.is_relative_to(paths.home()) else path
        train = f"rkd sweep {path}"
        lines += ["", f"{text.counted(missing, 'run')} missing, teachers included: {train}"]
    return "\n".join(lines) + "\n"


def _csv(verdicts) -> str:
    import pandas as pd

    rows = [
        {
            "id": v.claim.id, "kind": v.claim.kind, "chapter": v.claim.chapter, "who": v.claim.who,
            "table": v.claim.table, "row": v.claim.row, "statement": v.claim.statement,
            "published": v.claim.printed, "margin": v.claim.margin, "family": v.claim.family,
            "verdict": v.verdict, "estimate": v.last.estimate, "low": v.last.interval[0], "high": v.last.interval[1],
            "level": v.last.level, "p": v.last.p, "p_holm": v.last.p_holm, "n": " ".join(map(str, v.last.n)),
            "verdict_by_best_epoch": v.best.verdict, "optimism": v.optimism, "arithmetics": v.arithmetics,
            "left_out": v.left_out, "missing_runs": len(v.missing),
            "more_seeds": v.last.more_seeds, "why": v.last.sentence, "records": " ".join(v.records),
        }
        for v in verdicts
    ]  # fmt: skip
    return pd.DataFrame(rows).to_csv(index=False)
