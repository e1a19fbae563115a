"""Print the published figures, all 471 or those that match; disagreements between sources stand side by side. With
--resolve, print what answers them: runs, several runs, a value of a recipe, or one sentence."""

import argparse

EPILOG = """examples:
  rkd claims --table "Table 3"
  rkd claims --source kdrefine --method CRD
  rkd claims --csv > published.csv
  rkd claims --resolve                          how many figures of each source are answered by what
  rkd claims --resolve --source kdrefine        each of them, with its runs, and how many are recorded
  rkd run --claim kdrefine-benchmark-resnet56-resnet20-crd-cifar100"""

COLUMNS = ("id", "source", "table", "teacher", "student", "method", "dataset", "metric")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for column in COLUMNS:
        parser.add_argument(f"--{column}", metavar="TEXT", help=f"only rows with this {column}")
    parser.add_argument("--csv", action="store_true", help="as CSV, all columns")
    parser.add_argument("--resolve", action="store_true", help="what answers each figure")
    parser.add_argument(
        "--profile", default="paper", metavar="NAME", help="of the runs, with --resolve (default paper)"
    )
    parser.add_argument("--results", metavar="DIR", help="folder of records (default: the profile's own)")


def call(options: argparse.Namespace) -> int:
    from rkd import published
    from rkd.errors import unknown

    equal = {c: getattr(options, c) for c in COLUMNS if getattr(options, c) is not None}
    for column, value in equal.items():
        known = published.load()[column].unique()
        if column == "id":
            published.get(value)
        elif value not in known:
            raise unknown(column, value, known)
    table = published.load(**equal)
    if options.resolve:
        return _resolve(table, options, each=bool(equal))
    if options.csv:
        print(table.drop(columns="number").to_csv(index=False), end="")
        return 0
    print(table[["id", "variant", "value", "note"]].to_string(index=False, max_colwidth=100))
    print(f"{len(table)} figures")
    return 0


def _resolve(table, options: argparse.Namespace, each: bool) -> int:
    """Answers of the rows of `table`: counted by source, or each of them."""
    from rkd.experiments.answers import KINDS, answers
    from rkd.experiments.settings import profile_path

    profile_path(options.profile)
    found = answers(table)
    if options.csv or each:
        rows = _rows(table, found, options)
        if options.csv:
            print(rows.to_csv(index=False), end="")
            return 0
        print(rows.drop(columns=["source", "agrees"]).to_string(index=False, max_colwidth=100))
    kinds = list(KINDS)
    print(f"{'source':24}" + "".join(f"{kind:>11}" for kind in kinds) + f"{'all':>8}{'unanswered':>12}")
    of_source = dict(zip(table["id"], table["source"], strict=True))
    for source in dict.fromkeys(table["source"]):
        kinds_here = [answer.kind for answer in found if of_source[answer.figure] == source]
        total = int((table["source"] == source).sum())
        print(_counted(source, kinds_here, total, kinds))
    print(_counted("all", [answer.kind for answer in found], len(table), kinds))
    return 0


def _counted(name: str, found: list[str], total: int, kinds: list[str]) -> str:
    counts = "".join(f"{found.count(kind):>11}" for kind in kinds)
    return f"{name:24}{counts}{total:>8}{total - len(found):>12}"


def _rows(table, answers, options: argparse.Namespace):
    """One row per figure: its answer, the runs, how many of them are recorded."""
    import pandas as pd

    from rkd.experiments.answers import Lines
    from rkd.experiments.runner import pick_device
    from rkd.experiments.settle import settle_all
    from rkd.experiments.workspace import store_for

    lines, store = Lines({"profile": options.profile}), store_for(options.profile, options.results)
    device = pick_device()
    rows = []
    for row, answer in zip(table.itertuples(), answers, strict=True):
        asked = (run for selector in answer.lines for run in lines.line(selector).runs)
        runs = [run.id for run in settle_all(asked, store, device)]
        rows.append(
            {
                "id": row.id,
                "source": row.source,
                "value": row.value,
                "kind": answer.kind,
                "answer": " ".join(answer.lines) or answer.ours,
                "recorded": f"{sum(store.has(run) for run in runs)}/{len(runs)}" if runs else "",
                "runs": " ".join(runs),
                "how": answer.how,
                "agrees": "" if answer.kind != "setting" else str(answer.agrees).lower(),
            }
        )
    return pd.DataFrame(rows)
