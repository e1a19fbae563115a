"""Verdicts: declared claims, the recorded runs that answer them, and the rules that decide.

Nothing here needs torch until a record is there that was not read before (see `rkd.experiments.ended`).
"""

from rkd.judge.decide import VERDICTS
from rkd.judge.declared import KINDS, Claim, Kind, load_claims
from rkd.judge.evaluation import GRADES, Assessment, Evaluation, Grade, assess, evaluate_claims
from rkd.judge.rules import RuleResult
