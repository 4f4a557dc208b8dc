"""Serve enhancers over HTTP: a page to try them on, and an API to build on.

Needs the extra ``enhancekit[serve]``.
"""

from enhancekit.serve.app import create_app
from enhancekit.serve.server import run
from enhancekit.serve.settings import Settings

__all__ = ["Settings", "create_app", "run"]
