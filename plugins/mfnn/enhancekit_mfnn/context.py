"""The context blocks of MFNN: what is decided once for a whole picture, then told to every tile.

A context block has ``extra_channels``, how many it adds to the picture's three;
``context(whole, **controls)``, which decides; ``context_for(batch)``, the decision that suits a
training batch, whose references are known; and ``forward(x, context)``, what the network sees of a
picture. It may have ``loss(inputs, targets)``, a loss of its own on thumbnails of whole pictures,
and ``context_grid``; see `enhancekit.specs.BackboneSpec`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from enhancekit.errors import OptionError

if TYPE_CHECKING:
    from enhancekit.training.batches import Batch

__all__ = ["Exposure", "NoiseLevel"]


def _average_down(x: Tensor, size: int) -> Tensor:
    """Give ``adaptive_avg_pool2d(x, size)`` as two products with matrices of averages."""

    def averages(length: int) -> Tensor:
        row = torch.arange(size, device=x.device).view(-1, 1)
        place = torch.arange(length, device=x.device)
        first, end = row * length // size, ((row + 1) * length + size - 1) // size
        inside = ((place >= first) & (place < end)).to(x.dtype)
        return inside / inside.sum(dim=1, keepdim=True)

    return averages(x.shape[2]) @ x @ averages(x.shape[3]).T


class _Predictor(nn.Module):
    """A brightness for each of N pictures (N, 4, 48, 48)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        channels = (4, width, 2 * width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for below, above in pairwise(channels):
            layers += [nn.Conv2d(below, above, 3, stride=2, padding=1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(8 * width, 64),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(64, 1),
        )

    def forward(self, seen: Tensor) -> Tensor:
        features = self.features(seen)
        pooled = torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))), dim=1)
        brightness: Tensor = 0.45 + 0.2 * self.head(pooled)[:, 0]
        return brightness


def _slope(level: Tensor, log_gain: Tensor) -> Tensor:
    """Give by what the tone curve multiplies values of a level, at least 0."""
    gain = log_gain.exp()
    # beyond 1 the curve goes on as x itself; the formula has a pole there for gains below 1
    return gain / (1 + (gain - 1) * level.clamp(max=1))


class Exposure(nn.Module):
    r"""Exposure as its own, global decision: a tone curve whose mean brightness is chosen first.

    The curve is :math:`f_g(x) = g x / (1 + (g - 1) |x|)`: slope g in the shadows, 1 stays 1. The
    gain g is solved for so that the mean of the curved picture is the target brightness, which
    small networks predict from a thumbnail of the whole picture unless it is given; what they say
    of it and of its mirror image is averaged. The network behind then sees the curved picture and
    log g, which tells it how far noise was amplified. A curve of its own for each channel lets
    bright colours turn pale, as cameras do, but orange lamps yellow; so where the picture is bright
    already, all channels are multiplied by nearly the same.

    Parameters
    ----------
    width : int
        Channels of the predictors' first convolution.
    dropout : float
        Dropout of the predictors while training.
    members : int
        How many predictors there are. Few scenes are at hand to learn from, and what each of them
        gets wrong differs (deep ensembles, Lakshminarayanan et al., NeurIPS 2017).
    """

    extra_channels = 1
    context_grid = 48
    max_log_gain = 6.0

    def __init__(self, width: int = 24, dropout: float = 0.3, members: int = 8) -> None:
        super().__init__()
        if members < 1:
            raise OptionError(f"an exposure has at least 1 member, not {members}")
        self.members = nn.ModuleList(_Predictor(width, dropout) for _ in range(members))

    def context(self, whole: Tensor, exposure: Tensor | None = None) -> Tensor:
        """Choose log g, (N, 1, 1, 1), by the mean brightness wanted, (N,), or else predicted."""
        thumbnail = self.summarise(whole)
        return self.solve(thumbnail, self.predict(thumbnail) if exposure is None else exposure)

    def context_for(self, batch: Batch) -> Tensor:
        """Choose log g so that whole inputs become as bright as their references."""
        return self.context(batch.input_whole, batch.target_whole.mean(dim=(1, 2, 3)))

    def summarise(self, whole: Tensor) -> Tensor:
        """Average a whole picture (N, 3, H, W) down to (N, 3, 48, 48), in 32 bits."""
        if torch.onnx.is_in_onnx_export():  # ONNX has no adaptive pooling of an unknown size
            return _average_down(whole.float(), self.context_grid)
        return F.adaptive_avg_pool2d(whole.float(), self.context_grid)

    def solve(self, thumbnail: Tensor, brightness: Tensor) -> Tensor:
        """Find log g, shape (N, 1, 1, 1), giving the mean `brightness`, shape (N,)."""
        low = thumbnail.new_full((thumbnail.shape[0], 1, 1, 1), -3.0)
        high = torch.full_like(low, self.max_log_gain)
        target = brightness.float().view(-1, 1, 1, 1)
        for _ in range(24):  # bisection down to a millionth
            middle = (low + high) / 2
            mean = self.curve(thumbnail, middle).mean(dim=(1, 2, 3), keepdim=True)
            low = torch.where(mean < target, middle, low)
            high = torch.where(mean < target, high, middle)
        # nothing brightens black; the network makes grey of it where it is told of a large gain
        black = thumbnail.amax(dim=(1, 2, 3), keepdim=True) <= 0
        return torch.where(black, 0.0, (low + high) / 2)

    def predict(self, thumbnail: Tensor) -> Tensor:
        """Predict the brightness, shape (N,), a good picture of the scene would have."""
        seen = self._seen(thumbnail)
        said = self._said(torch.cat((seen, seen.flip(3))))  # two at once: a faster kernel is used
        return said.view(len(self.members), 2, -1).mean(dim=(0, 1)).clamp(0.05, 0.95)

    def _seen(self, thumbnail: Tensor) -> Tensor:
        """Give what the predictors see, (N, 4, 48, 48): a picture of one brightness, and log g."""
        grey = thumbnail.new_full((thumbnail.shape[0],), 0.45)
        log_gain = self.solve(thumbnail, grey)
        picture = (self.curve(thumbnail, log_gain) - 0.45) * 3
        level = (log_gain - 3).expand(-1, 1, *thumbnail.shape[2:])
        return torch.cat((picture, level), dim=1)

    def _said(self, seen: Tensor) -> Tensor:
        """Give each member's prediction, (members, N)."""
        # 16 bits would shift the brightness of the whole picture, and cost nothing to avoid
        with torch.autocast(seen.device.type, enabled=False):
            return torch.stack([member(seen) for member in self.members])

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Compare what each member predicts with the brightness of the references, N thumbnails.

        The inputs are made darker or brighter, and tinted a little, at random: what the scene is
        decides how bright it should be, not how far it was underexposed.
        """
        thumbnail = self.summarise(inputs)
        gain = torch.exp(torch.randn(len(inputs), 1, 1, 1, device=inputs.device) * 0.5)
        gain = gain.minimum(1 / thumbnail.amax(dim=(1, 2, 3), keepdim=True).clamp(min=0.02))
        tint = torch.exp(torch.randn(len(inputs), 3, 1, 1, device=inputs.device) * 0.05)
        predicted = self._said(self._seen((thumbnail * gain * tint).clamp(0, 1)))
        wanted = targets.float().mean(dim=(1, 2, 3)).expand_as(predicted)
        return F.smooth_l1_loss(predicted, wanted, beta=0.03)

    @staticmethod
    def curve(x: Tensor, log_gain: Tensor) -> Tensor:
        """Apply the tone curve; odd around 0, so that noise below 0 stays harmless."""
        return x * _slope(x.abs(), log_gain)

    @staticmethod
    def tone(x: Tensor, log_gain: Tensor) -> Tensor:
        """Apply the tone curve, but treat all channels nearly alike where one comes near 1."""
        greatest = x.amax(dim=1, keepdim=True)
        near = (2 * greatest - 1).clamp(0, 1)
        shared = 0.7 * near.square() * (3 - 2 * near)
        return x * _slope(torch.lerp(x.abs(), greatest, shared), log_gain)

    def forward(self, x: Tensor, log_gain: Tensor) -> Tensor:
        """Give the picture after the tone curve and the level map, (N, 4, H, W), in 32 bits."""
        x = x.float()
        level = (log_gain / 3 - 1).expand(-1, 1, *x.shape[2:])
        return torch.cat((self.tone(x, log_gain), level), dim=1)


class NoiseLevel(nn.Module):
    """How strong the noise is, if it is known: one more channel, the same everywhere.

    Where sigma isn't given the channel is 0 and the network finds the noise by itself. The idea of
    a map is FFDNet's (Zhang et al., IEEE TIP 2018), which always needs one.

    Examples
    --------
    >>> level = NoiseLevel()
    >>> x = torch.zeros(1, 3, 8, 8)
    >>> level(x, level.context(x, sigma=torch.tensor([25.0])))[0, 3, 0, 0]
    tensor(0.6000)
    """

    extra_channels = 1
    context_grid = 0

    def context(self, whole: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Give the channel's value, (N, 1, 1, 1), for a standard deviation in 255ths, (N,)."""
        if sigma is None:
            return whole.new_zeros((whole.shape[0], 1, 1, 1), dtype=torch.float32)
        # 5 more, so that a picture said to have no noise is told from one of which nothing is known
        return (sigma.float().view(-1, 1, 1, 1) + 5) / 50

    def context_for(self, batch: Batch) -> Tensor:
        """Tell the noise of every second crop or so, as the difference's root mean square."""
        if batch.input.shape != batch.target.shape:
            raise OptionError(
                "noise_level compares inputs with references as large; not for scale > 1"
            )
        error = (batch.input.float() - batch.target.float()).square().mean(dim=(1, 2, 3)).sqrt()
        told = torch.rand(len(error), 1, 1, 1, device=error.device) < 0.5
        return self.context(batch.input, 255 * error).where(told, self.context(batch.input))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Give the picture and the channel, (N, 4, H, W), in 32 bits."""
        return torch.cat((x.float(), level.expand(-1, 1, *x.shape[2:])), dim=1)
