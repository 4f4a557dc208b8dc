"""Each check of a plugin as a package fails on what breaks exactly it, and on nothing else."""

from __future__ import annotations

import re
import warnings

import pytest

from enhancekit import hookspecs
from enhancekit.errors import ConformanceError
from enhancekit.testing import NotApplicable, PluginCase, check_plugin, checks_of

METADATA = "License-Expression: MIT\nRequires-Dist: enhancekit (>=0.1)\n"
BLOCK = {"name": "good", "role": "residual", "target": "{code}:Good"}
GOOD = {"blocks": [BLOCK], "code": "class Good:\n    pass\n", "metadata": METADATA}
HOOK = """
from enhancekit import BlockSpec, hookimpl
@hookimpl
def enhancekit_blocks():
    yield BlockSpec(name="good", role="residual", summary="x", target="math:sqrt")
"""
# stands in for the real one, which takes seconds; the fresh process finds it first
TORCH = """
class backends:
    class cudnn:
        benchmark = False
def get_default_dtype():
    return "torch.float32"
def is_grad_enabled():
    return True
def are_deterministic_algorithms_enabled():
    return False
class Drawn(list):
    tolist = list.copy
threads, precision, drawn = 4, "highest", Drawn([1])
def get_num_threads():
    return threads
def get_float32_matmul_precision():
    return precision
def get_rng_state():
    return drawn
"""
WEIGHTS = """
from enhancekit import EnhancerSpec, BackboneSpec, WeightsSpec, hookimpl
@hookimpl
def enhancekit_backbones():
    yield BackboneSpec(name="net", summary="x", target="math:sqrt")
@hookimpl
def enhancekit_enhancers():
    weights = WeightsSpec(resource="enhancekit:gone.safetensors", sha256="0" * 64)
    yield EnhancerSpec(name="dim", summary="x", task="tone", backbone="net", weights=weights)
"""
BROKEN = {
    "registers": (
        {"source": "raise OSError('no licence server')", "metadata": METADATA},
        r"orbit \(orbit-plugin 1\.0\): OSError: no licence server",
    ),
    "names_are_normalised": (
        {**GOOD, "name": "Orbit_Kit"},
        "call its entry point 'orbit-kit'",
    ),
    "names_are_its_own": (
        {"losses": [{"name": "ssim", "target": "math:sqrt"}], "metadata": METADATA},
        r"loss orbit:ssim \(orbit-plugin 1\.0\) takes the name 'ssim' of the core's loss",
    ),
    "licence_and_versions_are_stated": (
        {**GOOD, "metadata": "Requires-Dist: enhancekit\n", "version": "first"},
        r"does not state a licence .*, a version .*, the versions of enhancekit",
    ),
    "targets_resolve": (
        {**GOOD, "code": "Good = 7"},
        "'fake_orbit_plugin_code:Good', which is a int and cannot be called",
    ),
    "weights_have_a_card": (
        {"source": WEIGHTS, "metadata": METADATA},
        r"enhancer orbit:dim .* not installed .*reinstall",
    ),
    "uses_no_deprecated_hook": (GOOD, "uses what will go: use enhancekit_parts, from 0.2 on"),
    "listing_imports_no_torch": (
        {"source": "import torch\n" + HOOK, "metadata": METADATA},
        r"imports torch \(.*fake_orbit_plugin\.py:1\); let the plugin's module hold descriptions",
    ),
    "no_side_effects_on_import": (
        {**GOOD, "code": "import os\nos.environ['ORBIT'] = '1'\nclass Good:\n    pass\n"},
        r"importing the code of the plugin orbit sets the environment variable ORBIT; do that",
    ),
}


@pytest.fixture
def deprecated(monkeypatch):
    """Announce the end of a hook, as the core would."""
    marked = {
        **hookspecs.enhancekit_blocks.enhancekit_spec,
        "warn_on_impl": DeprecationWarning("use enhancekit_parts, from 0.2 on"),
    }
    monkeypatch.setattr(hookspecs.enhancekit_blocks, "enhancekit_spec", marked)


@pytest.fixture(autouse=True)
def _torch_stand_in(tmp_path, monkeypatch):
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "torch.py").write_text(TORCH)
    monkeypatch.syspath_prepend(str(tmp_path / "stand_in"))


def failing(name="orbit"):
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for check, run in checks_of(PluginCase(name)).items():
            try:
                run()
            except ConformanceError as error:
                found[check] = str(error)
            except NotApplicable:
                pass
    return found


def test_every_check_has_a_plugin_that_breaks_it():
    assert set(BROKEN) == set(checks_of(PluginCase("orbit")))


@pytest.mark.parametrize("check", BROKEN)
def test_breaking_exactly_one(check, make_plugin, request):
    if check == "uses_no_deprecated_hook":
        request.getfixturevalue("deprecated")
    given, said = BROKEN[check]
    found = failing(make_plugin(**given).name)
    assert set(found) == {check}, found
    assert re.search(said, found[check])


def test_mended(make_plugin):
    make_plugin(**GOOD)
    statuses = {o.check: o.status for o in check_plugin("orbit")}
    assert statuses.pop("weights_have_a_card") == "not applicable"
    assert set(statuses.values()) == {"passed"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("print('hello')", "prints 'hello'"),
        ("open('left', 'w').close()", "writes a file (left)"),
        ("import subprocess\nsubprocess.run(['true'])", "runs a command (true)"),
        ("import random\nrandom.seed(0)", "changes the state of `random`"),
        ("import logging\nlogging.basicConfig()", "changes the root logger"),
        ("import warnings\nwarnings.simplefilter('ignore')", "changes warnings.filters"),
        ("import sys\nsys.path.append('x')", "changes sys.path"),
    ],
)
def test_side_effects_of_listing(make_plugin, source, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # this process imports the code too
    make_plugin(source + HOOK, metadata=METADATA)
    assert said in failing()["no_side_effects_on_import"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import torch\ntorch.threads = 1", "changes torch's number of threads"),
        ("import torch\ntorch.precision = 'medium'", "torch.set_float32_matmul_precision"),
        ("import torch\ntorch.drawn[0] = 2", "changes the state of torch's random numbers"),
        ("import numpy\nnumpy.random.seed(0)", "changes the state of `numpy.random`"),
        ("import numpy\nnumpy.seterr(all='ignore')", "changes numpy.seterr"),
        ("import logging\nlogging.disable(logging.CRITICAL)", "changes logging.disable"),
        ("import warnings\nwarnings.simplefilter('ignore')", "changes warnings.filters"),
        ("import sys\nprint('hello', file=sys.stderr)", "prints 'hello'"),
        ("import os\nos.write(1, b'hello')", "prints 'hello'"),
    ],
)
def test_side_effects_of_the_code(make_plugin, source, said):
    make_plugin(**{**GOOD, "code": source})
    # this check alone: others import the code into this process too
    with pytest.raises(ConformanceError, match=f"importing the code of .*{re.escape(said)}"):
        checks_of(PluginCase("orbit"))["no_side_effects_on_import"]()


def test_what_libraries_say_and_set_is_not_held_against_a_plugin(make_plugin):
    code = """
    import logging
    import warnings
    logging.getLogger(__name__).warning("there is no driver")
    warnings.warn("there will be another driver")
    warnings.filterwarnings("ignore", "a driver")
    """
    make_plugin(**{**GOOD, "code": code})
    checks_of(PluginCase("orbit"))["no_side_effects_on_import"]()


def test_a_backbone_that_nobody_registers(make_plugin):
    enhancer = {"name": "dim", "task": "tone", "backbone": "orbit:none"}
    make_plugin(enhancers=[enhancer], metadata=METADATA)
    assert "no backbone is called 'orbit:none'" in failing()["targets_resolve"]


def test_not_installed(fresh_host):
    with pytest.raises(ConformanceError, match=r"no plugin 'orbit' is installed, only .*builtin"):
        check_plugin("orbit")
