"""Checks that blocks and backbones share: what any torch module in a network must do."""

from __future__ import annotations

import copy
import pickle

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from enhancekit.errors import ConformanceError
from enhancekit.inference.layout import to_channels_last
from enhancekit.testing.cases import BackboneCase, BlockCase, NotApplicable
from enhancekit.testing.devices import require_one_device
from enhancekit.testing.samples import noise, seeded

__all__ = [
    "MODULE_CHECKS",
    "alike",
    "batch_equals_singles",
    "computes_on_one_device",
    "copies",
    "deterministic_in_eval",
    "gradient_reaches_every_parameter",
    "input_is_untouched",
    "pickles",
    "repeatable",
    "state_round_trip",
    "takes_channels_last",
]

ModuleCase = BlockCase | BackboneCase
DRAWS = 20
"""How often a network that leaves out parts at random is tried in training."""


def _input(case: ModuleCase, module: nn.Module, n: int = 2) -> Tensor:
    """Give pictures, or for a block features of either sign."""
    if isinstance(case, BlockCase):
        return noise(n, case.widths[0], 8, 9) - 0.5
    needs = getattr(module, "size_requirements", None)
    multiple = getattr(needs, "multiple_of", 1)
    side = -(-max(8, getattr(needs, "minimum", 1)) // multiple) * multiple
    return noise(n, case.channels, side, side + multiple)


def _result(case: ModuleCase, module: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    with torch.no_grad(), seeded(seed):
        return case.apply(module, x.clone())


def _repeats(case: ModuleCase, module: nn.Module) -> bool:
    x = _input(case, module)
    results = []
    for seed in range(2):
        _result(case, module, 0.5 * (seed + 1) * x.flip(3))
        results.append(_result(case, module, x, seed))
    return torch.equal(*results)


def repeatable(case: ModuleCase) -> nn.Module:
    """Make it, if it gives the same again; what makes a difference cannot be told otherwise."""
    module = case.make()
    if not _repeats(case, module):
        raise NotApplicable("it gives another result each time; see deterministic_in_eval")
    return module


def gradient_reaches_every_parameter(case: ModuleCase) -> None:
    """Require that every parameter takes part in what is trained."""
    module = case.make().train()
    trained = [(k, p) for k, p in module.named_parameters() if p.requires_grad]
    if not trained:
        raise NotApplicable("it has no parameters to train")
    x = _input(case, module)
    own_loss = getattr(module, "context_loss", None)
    if isinstance(case, BackboneCase) and callable(own_loss):
        # what decides on the whole picture may be trained by itself, as the trainer does
        own = own_loss(x, x.flip(0))
        if own.requires_grad:
            torch.autograd.backward([own])
    without = [k for k, _ in trained]
    for seed in range(DRAWS):  # a rectifier, dropout or stochastic depth may shut one picture off
        with seeded(seed):
            # the sum also keeps x from being changed in place
            done = case.apply(module, x + 0.1 * (seed % 3))
        if not done.requires_grad:
            continue
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(done.shape, generator=generator)  # or the gradients of pixels cancel
        torch.autograd.backward([(done * weight).sum()])
        without = [k for k, p in trained if p.grad is None or not bool(p.grad.any())]
        if not without:
            return
    raise ConformanceError(
        f"no gradient reaches {', '.join(without)} of {case.entry}; use them in forward, "
        "remove them, or register them as buffers"
    )


def state_round_trip(case: ModuleCase) -> None:
    """Require that its state dict holds all it computes with, and survives safetensors."""
    module = case.make()
    x = _input(case, module)
    try:
        payload = safetensors.torch.save(
            {k: v.detach().contiguous().clone() for k, v in module.state_dict().items()}
        )
        again = case.make(seed=1)
        again.load_state_dict(safetensors.torch.load(payload), strict=True)
    except Exception as error:
        raise ConformanceError(
            f"the state of {case.entry} cannot be saved and loaded as safetensors: {error}"
        ) from error
    if not _close(_result(case, module, x), _result(case, again, x)):
        raise ConformanceError(
            f"{case.entry} gives another result after its state was saved and loaded: something "
            "it computes with is no parameter; use register_buffer"
        )


def deterministic_in_eval(case: ModuleCase) -> None:
    """Require the same result again in eval mode, whatever was random or computed between."""
    if not _repeats(case, case.make()):
        raise ConformanceError(
            f"{case.entry} gives another result when called again in eval mode; dropout and noise "
            "must depend on self.training, and forward must not change its own state"
        )


def input_is_untouched(case: ModuleCase) -> None:
    """Require that the tensor given is not changed in place."""
    module = case.make()
    x = _input(case, module)
    before = x.clone()
    with torch.no_grad():
        case.apply(module, x)
    if not torch.equal(x, before):
        raise ConformanceError(
            f"{case.entry} changes its input in place, which others still read; write `x = x + y` "
            "instead of `x += y`, and no inplace=True on the first layer"
        )


def pickles(case: ModuleCase) -> None:
    """Require that it can be sent to another process, and computes the same there."""
    module = case.make()
    if any(is_parametrized(part) for part in module.modules()):
        raise NotApplicable("torch sends parametrised weights as state dicts alone")
    x = _input(case, module)
    try:
        again = pickle.loads(pickle.dumps(module))  # noqa: S301  our own bytes
    except Exception as error:
        raise ConformanceError(
            f"{case.entry} cannot be pickled, so it cannot be sent to other processes: {error}; "
            "keep no lambda, local function or open file as an attribute"
        ) from error
    if not _close(_result(case, module, x), _result(case, again, x)):
        raise ConformanceError(f"{case.entry} gives another result after pickling")


def copies(case: ModuleCase) -> None:
    """Require that it can be copied, as training does for its moving average."""
    module = case.make()
    try:
        again = copy.deepcopy(module)
    except Exception as error:
        raise ConformanceError(
            f"{case.entry} cannot be copied, as training does for its moving average: {error}; "
            "keep nothing computed from parameters as an attribute, as torch.nn.utils.weight_norm "
            "does; normalise weights in forward"
        ) from error
    x = _input(case, module)
    if not _close(_result(case, module, x), _result(case, again, x)):
        raise ConformanceError(f"{case.entry} gives another result after copying")


def batch_equals_singles(case: ModuleCase) -> None:
    """Require that a picture's result does not depend on the others of its batch."""
    module = repeatable(case)
    x = _input(case, module, 3) * torch.tensor([0.1, 0.5, 1.0]).view(3, 1, 1, 1)
    together = _result(case, module, x)
    singly = torch.cat([_result(case, module, one[None]) for one in x])
    if not alike(together, singly):
        raise ConformanceError(
            f"{case.entry} gives a picture another result in a batch than alone; take means and "
            "the like over the dimensions (1, 2, 3), never over the batch"
        )


def takes_channels_last(case: ModuleCase) -> None:
    """Require the same result in torch's other layout, which the pipeline and training use."""
    module = repeatable(case)
    x = _input(case, module)
    wanted = _result(case, module, x)
    to_channels_last(module)
    advice = "use reshape instead of view, and indices instead of strides"
    try:
        done = _result(case, module, x.contiguous(memory_format=torch.channels_last))
    except ConformanceError:
        raise
    except Exception as error:
        raise ConformanceError(
            f"{case.entry} fails in torch.channels_last, the layout of the pipeline and of "
            f"training: {type(error).__name__}: {error}; {advice}"
        ) from error
    if not alike(done, wanted):
        raise ConformanceError(
            f"{case.entry} gives another result in torch.channels_last, the layout of the pipeline "
            f"and of training; {advice}"
        )


def computes_on_one_device(case: ModuleCase) -> None:
    """Require that its constants go where it goes, as buffers do."""
    module = case.make()
    x = _input(case, module)
    require_one_device(case.entry, module, lambda: case.apply(module, x))


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-6)


def alike(a: Tensor, b: Tensor) -> bool:
    """Say whether both are the same but for the rounding of sums in another order."""
    return a.shape == b.shape and bool((a - b).abs().max() <= 2e-5 * b.abs().max().clamp(min=1))


MODULE_CHECKS = (
    gradient_reaches_every_parameter,
    state_round_trip,
    deterministic_in_eval,
    input_is_untouched,
    pickles,
    copies,
    batch_equals_singles,
    takes_channels_last,
    computes_on_one_device,
)
