"""The shortcuts give what the layers give one by one: values and gradients, borders included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from enhancekit_mfnn import folding
from enhancekit_mfnn.blocks import HSCDecoder, HSCEncoder
from enhancekit_mfnn.network import MFNN
from torch import nn

SIZES = [(16, 16), (20, 34), (48, 18)]


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(folding, "PAYS", 0)


def encoders():
    torch.manual_seed(0)
    block = HSCEncoder(3, 6).double()
    return block, lambda x: block.conv2(block.conv1(x))


def agree(given, wanted, inputs):
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-11)
    towards = torch.randn(given.shape, dtype=given.dtype)
    ours = torch.autograd.grad(given, inputs, towards)
    theirs = torch.autograd.grad(wanted, inputs, towards)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_encoder(size):
    block, literal = encoders()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    agree(block(x), literal(x), [x, *block.parameters()])
    with torch.no_grad():
        torch.testing.assert_close(block(x), literal(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("projected_from", [0, 3, 8])
def test_decoder(size, projected_from):
    torch.manual_seed(1)
    decoder = HSCDecoder(10, 4).double()
    project = nn.Conv2d(projected_from, 6, 1).double() if projected_from else None
    fine = torch.randn(2, projected_from or 6, *size, dtype=torch.float64, requires_grad=True)
    coarse = torch.randn(2, 4, size[0] // 2, size[1] // 2, dtype=torch.float64, requires_grad=True)

    def literal():
        up = F.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        return decoder.conv(torch.cat((project(fine) if project else fine, up), dim=1))

    parameters = [*decoder.parameters(), *(project.parameters() if project else ())]
    agree(decoder.merge(fine, project, coarse), literal(), [fine, coarse, *parameters])
    with torch.no_grad():
        given = decoder.merge(fine, project, coarse)
        torch.testing.assert_close(given, literal(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("counts", [(1,), (1, 2), (1, 1, 2)])
def test_whole_network_keeps_its_output(monkeypatch, counts):
    torch.manual_seed(2)
    net = MFNN(width=4, counts=counts, output="sigmoid").double().eval()
    x = torch.rand(1, 3, 68, 84, dtype=torch.float64)
    with torch.no_grad():
        folded = net(x)
        monkeypatch.setattr(folding, "PAYS", 1e18)
        torch.testing.assert_close(folded, net(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("options", [{"pack": 2}, {"scale": 2}], ids=str)
def test_whole_network_keeps_its_output_packed_or_enlarged(monkeypatch, options):
    torch.manual_seed(3)
    net = MFNN(width=4, counts=(0, 1, 1), **options).double().eval()
    nn.init.normal_(net.head.final.weight, std=0.3)
    x = torch.rand(1, 3, 72, 88, dtype=torch.float64)
    with torch.no_grad():
        folded = net(x)
        monkeypatch.setattr(folding, "PAYS", 1e18)
        literal = net(x)
    assert literal.std() > 0.05
    torch.testing.assert_close(folded, literal, rtol=0, atol=1e-11)


def test_the_shortcut_is_taken(monkeypatch):
    """With the border left out, the result differs there and only there."""
    monkeypatch.setattr(folding, "_with_border", lambda y, ring, edge: y)
    block, literal = encoders()
    x = torch.randn(1, 3, 20, 24, dtype=torch.float64)
    off = (block(x) - literal(x)).abs().amax(dim=1)[0]
    assert off[2:-2, 2:-2].max() < 1e-11
    assert min(off[:2].min(), off[-2:].min(), off[:, :2].min(), off[:, -2:].min()) > 1e-6


def test_too_small_is_done_layer_by_layer():
    block, literal = encoders()
    x = torch.randn(1, 3, 3, 40, dtype=torch.float64)
    torch.testing.assert_close(block(x), literal(x), rtol=0, atol=0)


def test_memory_layout_is_kept():
    layout = torch.channels_last
    block = HSCEncoder(3, 6).to(memory_format=layout)
    given = block(torch.rand(1, 3, 32, 32))
    assert given.is_contiguous(memory_format=layout)
