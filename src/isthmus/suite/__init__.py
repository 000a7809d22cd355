"""A bridge on a benchmark: encoded, scored, and set beside simple methods, other recipes and what was published."""

from __future__ import annotations

from isthmus.suite.compare import compare_bridges
from isthmus.suite.run import run_suite
from isthmus.suite.settings import RECIPES, SuiteSettings
from isthmus.suite.table import format_suite

__all__ = ["RECIPES", "SuiteSettings", "compare_bridges", "format_suite", "run_suite"]
