"""Enhancers side by side on a folder of pictures that have no reference, as one page."""

from enhancekit.comparison.folder import Compared, Failed, Version, compare_folder
from enhancekit.comparison.report import as_dict, write_report

__all__ = ["Compared", "Failed", "Version", "as_dict", "compare_folder", "write_report"]
