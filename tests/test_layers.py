"""Imports run one way: a room knows nothing of those below it in ARCHITECTURE's table."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def imported(path):
    """Names of our modules that a file imports, those for types alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    for_types = {inner for node in types for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in for_types:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_room_imports_one_below_it():
    table = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## Three walks")[0]
    order = [
        room
        for line in table.splitlines()
        if line.startswith("| `rkd/")
        for room in re.findall(r"rkd/(\w+)", line.split("|")[1])
    ]
    rooms = {path.name for path in (ROOT / "rkd").iterdir() if (path / "__init__.py").is_file()}
    assert set(order) == rooms
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "rkd").rglob("*.py")
        for name in imported(path)
        if (parts := name.split("."))[0] == "rkd" and len(parts) > 1 and parts[1] in order
        and (here := path.relative_to(ROOT).parts[1]) in order and order.index(parts[1]) > order.index(here)
    ]  # fmt: skip
    assert not upward, upward
