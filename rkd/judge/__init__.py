"""Verdicts: declared claims, the recorded runs that answer them, and the rules that judge.

Names are looked up when they are asked for: what is declared, and which runs that needs, can be read where scipy, which
the rules compute with, is not installed.
"""

import importlib

_MODULES = {
    "KINDS": "declared",
    "VERDICTS": "rules",
    "Claim": "declared",
    "Judgement": "rules",
    "Kind": "declared",
    "PublishedSetting": "setting",
    "Selectors": "declared",
    "Verdict": "court",
    "is_published_setting": "setting",
    "judge": "court",
    "load_claims": "declared",
    "published_setting": "setting",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
