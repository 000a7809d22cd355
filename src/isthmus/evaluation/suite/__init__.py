"""A bridge on a benchmark: encoded, scored, and set beside simple methods, other recipes and what was published."""

from __future__ import annotations

from isthmus.evaluation.suite.compare import compare_bridges
from isthmus.evaluation.suite.reports import Comparison, SuiteReport
from isthmus.evaluation.suite.run_suite import run_suite
from isthmus.evaluation.suite.settings import RECIPES, SuiteSettings
from isthmus.evaluation.suite.suite_table import format_suite

__all__ = ["RECIPES", "Comparison", "SuiteReport", "SuiteSettings", "compare_bridges", "format_suite", "run_suite"]
