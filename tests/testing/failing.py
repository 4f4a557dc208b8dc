"""What the tests of the conformance kit share."""

from __future__ import annotations

from enhancekit.errors import ConformanceError
from enhancekit.testing import NotApplicable, checks_of


def failing(case):
    """Return the checks that fail, with what they say."""
    found = {}
    for name, check in checks_of(case).items():
        try:
            check()
        except ConformanceError as error:
            found[name] = str(error)
        except NotApplicable:
            pass
    return found
