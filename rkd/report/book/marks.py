"""The finish mark: what a chapter writes as its last act, and what makes a build believe it."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from rkd.report.book.files import write_if_changed

TOKEN, MARKS = "RKD_BOOK_TOKEN", "RKD_BOOK_MARKS"  # environment of an executing chapter


def write_mark(chapter: str, record_ids: Iterable[str], results_dir: str | Path) -> None:
    """The last act of a chapter: says that it came to its end, and which records its numbers stand on.

    Does nothing outside a build of the book, so the same notebook runs unchanged in Jupyter and on Colab.
    """
    token, marks = os.environ.get(TOKEN), os.environ.get(MARKS)
    if not token or not marks:
        return
    mark = {
        "chapter": chapter,
        "token": token,
        "records": list(record_ids),
        "results": str(Path(results_dir).resolve()),
        "machine": _machine(),
    }
    write_if_changed(Path(marks) / f"{chapter}.json", json.dumps(mark, indent=1, sort_keys=True))


def fault_of_mark(path: Path, chapter: str, token: str) -> str:
    """Why the finish mark does not vouch for the chapter; empty when it does."""
    try:
        mark = json.loads(path.read_text(encoding="utf8"))
        results, records = Path(mark["results"]), list(mark["records"])
        signed = mark["token"] == token and mark["chapter"] == chapter
    except FileNotFoundError:
        return "it ended without its finish mark, so it did not reach its last cell"
    except (json.JSONDecodeError, KeyError, TypeError):
        return f"its finish mark {path.name} is not readable"
    if not signed:
        return "its finish mark belongs to another build"
    for record in records:
        source = results / f"{record}.json"
        try:
            json.loads(source.read_text(encoding="utf8"))
        except FileNotFoundError:
            return f"it stands on record {record}, but {source} does not exist"
        except ValueError:
            return f"it stands on record {record}, but {source} is not JSON"
    return ""


def cpus() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine() -> str:
    parts = [f"Python {'.'.join(map(str, sys.version_info[:3]))}"]
    torch = sys.modules.get("torch")  # a chapter that never needed torch should not load it for this line
    if torch is not None:
        parts.append(f"torch {torch.__version__}")
        if torch.cuda.is_available():
            return ", ".join([*parts, torch.cuda.get_device_name()])
    count = cpus()
    return ", ".join([*parts, f"{count} CPU core{'s' if count > 1 else ''}"])
