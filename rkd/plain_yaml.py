"""YAML as users write it: plain values, in mappings with unique text keys."""

import re
from pathlib import Path
from typing import Any

import yaml

from rkd.config import SCIENTIFIC
from rkd.errors import ConfigError

LARGEST, MOST, DEEPEST = 1_000_000, 20_000, 32  # bytes of a file; values, aliases expanded; levels


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # ten times as fast where libyaml is available
    """A safe loader that reads 1e-3 as a number, where YAML 1.1 reads text."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(SCIENTIFIC), list("-+.0123456789"))


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; raise ConfigError if it cannot be read or is not YAML."""
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ConfigError(f"{path} has {size:,} bytes; a file of parameters has at most {LARGEST:,}")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise ConfigError(f"{path} is not valid YAML: it is not UTF-8 text") from error
    return from_yaml(text, str(path))


def from_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text; raise a ConfigError that begins with `where` for what is not YAML, a key that is
    duplicated or not text, or more or deeper values than anyone writes."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark and "\n" in text.strip() else ""
        said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ConfigError(f"{where} is not valid YAML{line}: {' '.join(said.split())}") from error


def _check(node: yaml.Node, depth: int = 0) -> int:
    """Return the number of values in a node; raise YAMLError for what is not allowed in it."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if depth == DEEPEST:
        raise _wrong(node, f"values are nested deeper than {DEEPEST} levels")
    inner = node.value
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "of several values"
                raise _wrong(key, f"the key {shown:.40} is no text")
            if key.value in keys:
                raise _wrong(key, f"{key.value!r:.40} is given twice")
            keys.add(key.value)
        inner = [value for _, value in node.value]
    total = 1
    for value in inner:
        total += _check(value, depth + 1)
        if total > MOST:
            raise _wrong(node, f"it comes to more than {MOST:,} values")
    return total


def _wrong(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
