"""Verdicts: declared claims, the recorded runs that answer them, and the rules that decide.

Nothing here needs torch until a record is there to be read.
"""

from rkd.judge.declared import KINDS, Claim, Kind, load_claims
from rkd.judge.evaluation import Evaluation, evaluate
from rkd.judge.rules import VERDICTS, RuleResult
from rkd.judge.setting import PublishedSetting, is_published_setting, published_setting

__all__ = [
    "KINDS", "VERDICTS", "Claim", "Evaluation", "Kind", "PublishedSetting", "RuleResult", "evaluate",
    "is_published_setting", "load_claims", "published_setting",
]  # fmt: skip
