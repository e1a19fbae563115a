"""Where the report's text, the released code, the report's code and its README disagree, and what that does.

`findings` holds the texts. The other modules measure, each in a second or two: printed, training, batchnorm, features,
fusion, pyramid, committed, reporting, baselines.
"""

from rkd.audit.findings import GROUPS, MATTERS, Finding, Side, demo, findings, in_group

__all__ = ["GROUPS", "MATTERS", "Finding", "Side", "demo", "findings", "in_group"]
