"""A short soak: small requests among nuisances, none of which changes anything for the others."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[1] / "benchmarks" / "serve_soak.py"


def test_requests_among_nuisances():
    spec = importlib.util.spec_from_file_location("serve_soak", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.soak(requests=300, settled=100)
    assert found["first_failures"] == []
    assert found["failures"] == 0
    assert found["nuisances_answered_wrongly"] == []
    assert min(found["nuisances"].values()) >= 1
    assert len(found["nuisances"]) == 6
    assert found["rss_growth"] < 0.05
