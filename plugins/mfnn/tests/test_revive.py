"""Dead rectifiers are given new inputs, and nothing changes but that they live."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch
from enhancekit_mfnn.network import MFNN

REVIVE = runpy.run_path(str(Path(__file__).parents[1] / "revive.py"))["revive"]


def activity(net, conv, calls):
    """How often each unit is positive."""
    seen = []
    handle = conv.register_forward_hook(lambda *given: seen.append((given[2] > 0).float()))
    with torch.inference_mode():
        for call in calls:
            net(*call)
    handle.remove()
    return torch.cat(seen).mean((0, 2, 3))


def test_dead_units_live_and_the_result_stays():
    torch.manual_seed(0)
    net = MFNN(width=8, counts=(2, 1)).eval()
    torch.nn.init.normal_(net.head.final.weight)
    blocks = [block for trunk in net.trunks for block in trunk.blocks]
    for block in blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.1)
        block.conv1.bias.data[:5] = -1e3
    calls = [(torch.rand(2, 3, 32, 32),) for _ in range(2)]
    with torch.inference_mode():
        before = net(*calls[0])
    dead, units = REVIVE(net, calls)
    assert units == 8 + 8 + 16
    assert 15 <= dead < units
    with torch.inference_mode():
        torch.testing.assert_close(net(*calls[0]), before)
    for block in blocks:
        assert (activity(net, block.conv1, calls)[:5] > 0.3).all()
        assert not block.conv2.weight[:, block.conv1.out_channels :][:, :5].any()
    # and there is a gradient again
    net.train()
    net(*calls[0]).sum().backward()
    assert blocks[0].conv2.weight.grad[:, 8:13].abs().amax(dim=(0, 2, 3)).min() > 0


def test_it_knows_which_inputs_are_an_expanded_blocks_units():
    torch.manual_seed(0)
    net = MFNN(width=8, counts=(1,), block_options={"expansion": 2}).eval()
    (block,) = net.trunks[0].blocks
    torch.nn.init.normal_(net.head.final.weight)
    torch.nn.init.normal_(block.conv2.weight, std=0.1)
    block.conv1.bias.data[8:13] = -1e3
    calls = [(torch.rand(2, 3, 32, 32),)]
    with torch.inference_mode():
        before = net(*calls[0])
    dead, units = REVIVE(net, calls)
    assert units == 16
    assert dead >= 5
    with torch.inference_mode():
        torch.testing.assert_close(net(*calls[0]), before)
    assert block.conv2.weight[:, 8:16].any(dim=0).all()
    assert not block.conv2.weight[:, 16:21].any()


def test_living_units_stay_as_they_are():
    torch.manual_seed(0)
    net = MFNN(width=8, counts=(1,)).eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    assert REVIVE(net, [(torch.rand(1, 3, 32, 32),)]) == (0, 8)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
