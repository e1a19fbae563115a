"""`rkd records check`: files of a store that are damaged."""

from rkd.experiments.settings import resolve
from rkd.experiments.workspace import store_of


def check(*, profile: str = "smoke", results: str | None = None, quarantine: bool = False) -> int:
    """Read every record, file of maps, checkpoint and file of weights of a profile, compare checksums, and name what
    is damaged, foreign, or claims more than it proves. With --quarantine, move it to the folder damaged/ beside the
    records, where nothing looks: `rkd sweep` trains what is missing then.

    Args:
        quarantine: move what is damaged to the folder damaged/ beside the records

    Examples:
        rkd records check --profile paper
        rkd records check --results ~/theirs --quarantine

        Exit status: 0 nothing is damaged, 1 something is, 2 wrong call.
    """
    from rkd.records import damage

    store = store_of(resolve("records", {"profile": profile, "results": results}))
    total, bad = len(damage.files(store)), 0
    for name, path, why in damage.damaged(store):
        bad += 1
        print(f"{path}: {why}")
        if quarantine:
            print(f"  moved to {damage.set_aside(store, name, path)}")
    print(f"{bad} of {total} files are damaged; records: {store.records}")
    return 1 if bad else 0
