"""The report: what was joined and how, how good it is and why, as one file that opens anywhere, or as Markdown."""

from isthmus.export.report.collect import ReportTask
from isthmus.export.report.write import report

__all__ = ["ReportTask", "report"]
