"""Verdicts: declared claims, the recorded runs that answer them, and the rules that judge."""

from rkd.experiments.selectors import Selectors
from rkd.judge.court import Verdict, judge
from rkd.judge.declared import KINDS, Claim, Kind, load_claims
from rkd.judge.rules import VERDICTS, Judgement
from rkd.judge.setting import PublishedSetting, is_published_setting, published_setting

__all__ = [
    "KINDS",
    "VERDICTS",
    "Claim",
    "Judgement",
    "Kind",
    "PublishedSetting",
    "Selectors",
    "Verdict",
    "is_published_setting",
    "judge",
    "load_claims",
    "published_setting",
]
