"""Time and peak memory of training steps, each way in a process of its own; prints JSON.

    python tests/benchmarks/training_cost.py WAY HEIGHT WIDTH BATCH [STEPS]

WAY is report-literal, report-ours or paper-ours. Beside other busy processes compare the CPU
seconds, with OMP_WAIT_POLICY=PASSIVE.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import torch
from torch import Tensor, nn

import enhancekit
from enhancekit.inference.network import build_network


class LiteralReport(nn.Module):
    """The report's reduced model as its snippets have it: two scales, 1 + 2 SCR, w = 128.

    One SCR a scale applied several times, whose first convolution is computed twice and thrown away
    once; separate activations; a long skip around two convolutions; dropout of 0.5.
    """

    def __init__(self, w: int = 128) -> None:
        super().__init__()

        def conv(i: int, o: int, k: int) -> nn.Conv2d:
            return nn.Conv2d(i, o, k, padding=k // 2)

        self.encoders = nn.ModuleList(nn.Sequential(conv(3, w, 3), conv(w, w, 5)) for _ in "12")
        self.scr = nn.ModuleList(
            nn.ModuleList((conv(c, c, 3), conv(2 * c, c, 3))) for c in (w, 2 * w)
        )
        self.project = nn.ModuleList(conv(c, 2 * w, 1) for c in (w, 2 * w))
        self.decoder = conv(4 * w, 2 * w, 5)
        self.convs = nn.ModuleList(
            (conv(3 * w, 2 * w, 3), conv(2 * w, w, 3), conv(4 * w, w, 3), conv(w, w // 2, 3))
        )
        self.final = conv(w // 2, 3, 1)
        self.drop = nn.Dropout2d(0.5)

    def glsc(self, x: Tensor, scale: int, count: int) -> Tensor:
        first, second = self.scr[scale]
        for _ in range(count):
            torch.relu(first(x))
            x = second(torch.relu(torch.cat((x, first(x)), 1)))
        return self.project[scale](x)

    def forward(self, x: Tensor) -> Tensor:
        def half(t: Tensor) -> Tensor:
            return nn.functional.interpolate(t, scale_factor=0.5, mode="bilinear")

        e1, e2 = self.encoders[0](x), self.encoders[1](half(x))
        g1 = self.glsc(e1, 0, 1)
        g2 = self.glsc(torch.cat((e2, half(e1)), 1), 1, 2)
        up = nn.functional.interpolate(g2, scale_factor=2.0, mode="bilinear")
        features = torch.cat((self.decoder(torch.cat((g1, up), 1)), e1), 1)
        y = self.drop(torch.relu(self.convs[0](features)))
        y = self.drop(torch.relu(self.convs[1](y)))
        y = self.convs[2](torch.cat((y, features), 1))
        y = self.drop(torch.relu(self.convs[3](y)))
        return torch.sigmoid(self.final(y))


def main(way: str, height: int, width: int, batch: int, steps: int = 3) -> None:
    torch.manual_seed(0)
    ours = way.endswith("-ours")
    if ours:
        entry = enhancekit.enhancers.get(f"mfnn-{way.removesuffix('-ours')}")
        network, _ = build_network(entry, {"checkpointing": True}, pretrained=False)
        network.to(memory_format=torch.channels_last)
    else:
        network = LiteralReport()
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-7)
    x, target = torch.rand(batch, 3, height, width), torch.rand(batch, 3, height, width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, busy = [], []
    for _ in range(steps):
        begun, worked = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=ours):
            given = x.contiguous(memory_format=torch.channels_last) if ours else x
            output = network(given)
        loss = (output.float() - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        times.append(time.perf_counter() - begun)
        busy.append(time.process_time() - worked)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    cost = {"seconds": min(times), "cpu_seconds": min(busy), "peak_mib": peak / 1024}
    print(json.dumps(cost))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
