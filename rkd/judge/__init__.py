"""Verdicts: declared claims, the recorded runs that answer them, and the rules that judge."""

from rkd.experiments.selectors import Selectors
from rkd.judge.court import Verdict, is_published_setting, judge
from rkd.judge.declared import KINDS, Claim, Kind, load_claims
from rkd.judge.rules import VERDICTS, Judgement

__all__ = [
    "KINDS",
    "VERDICTS",
    "Claim",
    "Judgement",
    "Kind",
    "Selectors",
    "Verdict",
    "is_published_setting",
    "judge",
    "load_claims",
]
