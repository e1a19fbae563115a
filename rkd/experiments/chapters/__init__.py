"""The chapters: one short file per table or figure of the [Re] paper, and per question of our own."""

from rkd.experiments.chapters.base import Chapter, Line, Published, chapter, chapter_names, get_chapter
from rkd.experiments.chapters.table1 import table1
from rkd.experiments.chapters.table2 import table2
from rkd.experiments.chapters.table3 import table3

from rkd.experiments.chapters.figure6 import figure6  # isort: skip  (the order of the book)
from rkd.experiments.chapters.table4 import table4
from rkd.experiments.chapters.table5 import table5
from rkd.experiments.chapters.table6 import table6

from rkd.experiments.chapters.no_cross_entropy import no_cross_entropy  # isort: skip
from rkd.experiments.chapters.random_teacher import random_teacher
from rkd.experiments.chapters.recipes import recipes

from rkd.experiments.chapters.baselines import baselines  # isort: skip
from rkd.experiments.chapters.kdrefine import kdrefine
from rkd.experiments.chapters.modreduce import modreduce
from rkd.experiments.chapters.soft_targets_and_attention import soft_targets_and_attention

from rkd.experiments.chapters.methods import methods  # isort: skip

__all__ = [
    "Chapter",
    "Line",
    "Published",
    "baselines",
    "chapter",
    "chapter_names",
    "figure6",
    "get_chapter",
    "kdrefine",
    "methods",
    "modreduce",
    "no_cross_entropy",
    "random_teacher",
    "recipes",
    "soft_targets_and_attention",
    "table1",
    "table2",
    "table3",
    "table4",
    "table5",
    "table6",
]
