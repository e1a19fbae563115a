"""The paper itself, readable top to bottom: options, abf, connectors, hcl, framework."""

from rkd.review.abf import ABF
from rkd.review.framework import ReviewKD
from rkd.review.hcl import hcl
from rkd.review.options import ReviewOptions, level_size, level_weights
