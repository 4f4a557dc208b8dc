"""What is written differently for ONNX gives what torch's own functions give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from enhancekit_mfnn import folding
from enhancekit_mfnn.blocks import HSCEncoder
from enhancekit_mfnn.context import Exposure
from enhancekit_mfnn.network import _shrink


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(4, 4), (8, 20), (36, 12), (100, 64)])
def test_shrinking_is_antialiased_interpolation(scale, size):
    x = torch.rand(2, 5, *size, dtype=torch.float64)
    wanted = F.interpolate(x, scale_factor=1 / scale, mode="bilinear", antialias=True)
    torch.testing.assert_close(_shrink(x, scale), wanted, rtol=0, atol=1e-12)


def test_shrinking_stays_in_32_bits():
    x = torch.rand(1, 4, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        given = _shrink(x, 2)
    torch.testing.assert_close(given, _shrink(x, 2), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (48, 48), (131, 97)])
def test_the_thumbnail_in_a_graph_is_the_thumbnail(monkeypatch, size):
    whole = torch.rand(2, 3, *size)
    wanted = Exposure().summarise(whole)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    torch.testing.assert_close(Exposure().summarise(whole), wanted, rtol=0, atol=1e-6)


def test_folded_border_in_a_graph(monkeypatch):
    torch.manual_seed(0)
    block, x = HSCEncoder(3, 6).double(), torch.rand(1, 3, 20, 24, dtype=torch.float64)
    with torch.no_grad():
        wanted = block.conv2(block.conv1(x))
        monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
        with_border = folding._with_border
        taken = []
        monkeypatch.setattr(folding, "_with_border", lambda *a: taken.append(1) or with_border(*a))
        torch.testing.assert_close(block(x), wanted, rtol=0, atol=1e-11)
        assert taken
        torch.testing.assert_close(
            block(x[:, :, :12]), block.conv2(block.conv1(x[:, :, :12])), rtol=0, atol=0
        )
        assert len(taken) == 1
