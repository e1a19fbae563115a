"""Print the published figures, all 471 or those that match; disagreements between sources stand side by side."""

import argparse

EPILOG = """examples:
  rkd claims --table "Table 3"
  rkd claims --source kdrefine --method CRD
  rkd claims --csv > published.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for column in ("source", "table", "teacher", "student", "method", "dataset", "metric"):
        parser.add_argument(f"--{column}", metavar="TEXT", help=f"only rows with this {column}")
    parser.add_argument("--csv", action="store_true", help="as CSV, all columns")


def call(options: argparse.Namespace) -> int:
    from rkd import claims
    from rkd.errors import unknown

    columns = ("source", "table", "teacher", "student", "method", "dataset", "metric")
    equal = {c: getattr(options, c) for c in columns if getattr(options, c) is not None}
    for column, value in equal.items():
        known = claims.load()[column].unique()
        if value not in known:
            raise unknown(column, value, known)
    table = claims.load(**equal)
    if options.csv:
        print(table.drop(columns="number").to_csv(index=False), end="")
        return 0
    shown = table[["source", "table", "teacher", "student", "method", "variant", "dataset", "value", "note"]]
    print(shown.to_string(index=False, max_colwidth=48))
    print(f"{len(table)} figures")
    return 0
