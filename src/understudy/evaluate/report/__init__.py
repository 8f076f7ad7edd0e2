"""The reports of an evaluation: all figures as JSON, a page that shows them with the episodes, and figures as text."""

from .figures import Difference, differences, figure_rows, percent, shown_estimate
from .json_report import json_report
from .page import html_report

__all__ = ["Difference", "differences", "figure_rows", "html_report", "json_report", "percent", "shown_estimate"]
