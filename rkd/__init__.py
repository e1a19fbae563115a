"""rkd: knowledge distillation by knowledge review, and the report that measures it."""

__version__ = "0.1.0"
