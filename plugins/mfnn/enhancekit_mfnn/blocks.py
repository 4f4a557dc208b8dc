"""The local blocks of MFNN: encoder, SCR, GLSC, decoder and reconstruction.

Every block carries ``halo``: how many pixels of its own scale an output pixel looks beyond its
place. The network adds them up to tell the pipeline how far tiles must overlap.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from enhancekit.errors import OptionError, PluginError
from enhancekit_mfnn.folding import conv_of_conv, conv_of_project_and_double

__all__ = ["GLSC", "SCR", "HSCDecoder", "HSCEncoder", "Reconstruct"]


def keep_scale(conv: nn.Conv2d, gain: float = 1.0) -> None:
    """Initialise a convolution so that its output varies `gain` times as much as its input.

    torch's default shrinks the signal to 0.58 with every convolution. MFNN has up to a dozen in a
    row without normalisation: trained from the default, it learnt biases and hardly anything else.
    """
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    with torch.no_grad():
        conv.weight.mul_(gain)
        if conv.bias is not None:
            conv.bias.zero_()


class HSCEncoder(nn.Module):
    """Hierarchical spatio-contextual encoder: a 3x3 then a 5x5 convolution, nothing between.

    Parameters
    ----------
    in_channels, width : int
        Channels in and out.

    Examples
    --------
    >>> HSCEncoder(3, 16)(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 16, 8, 8])
    """

    halo = 3

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 5, padding=2)

    def keep_scale(self) -> None:
        """Initialise for a network without normalisation."""
        keep_scale(self.conv1)
        keep_scale(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, width, H, W)."""
        return conv_of_conv(x, self.conv1, self.conv2)


def _rectified(x: Tensor, y: Tensor) -> Tensor:
    """Give ``relu(cat(x, y))``; where no gradient is asked for, in half the memory traffic."""
    if torch.is_grad_enabled() or torch.onnx.is_in_onnx_export() or x.dtype != y.dtype:
        return torch.cat((x, y), dim=1).relu_()
    last = y.is_contiguous(memory_format=torch.channels_last)
    both = torch.empty(
        (x.shape[0], x.shape[1] + y.shape[1], *x.shape[2:]),
        dtype=y.dtype,
        device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    torch.clamp_min(x, 0, out=both[:, : x.shape[1]])
    torch.clamp_min(y, 0, out=both[:, x.shape[1] :])
    return both


class SCR(nn.Module):
    """Skip-connection residual block: ``y = conv2(relu(cat(x, conv1(x))))``, plus x if residual.

    Parameters
    ----------
    channels : int
        Channels in and out.
    residual : bool
        Add the input, as the report's text says ("residual learning"); its printed code does not.
    expansion : float
        How many times `channels` the first convolution gives, rounded: more units behind the
        rectifier without more channels between blocks (Yu et al., WDSR, 2018), or fewer. The
        report has 1.

    Examples
    --------
    >>> SCR(4)(torch.zeros(1, 4, 8, 8)).shape
    torch.Size([1, 4, 8, 8])
    """

    halo = 2

    def __init__(self, channels: int, residual: bool = True, *, expansion: float = 1) -> None:
        super().__init__()
        units = round(expansion * channels)
        if units < 1:
            raise OptionError(f"expansion={expansion} of {channels} channels leaves no units")
        self.residual = residual
        self.conv1 = nn.Conv2d(channels, units, 3, padding=1)
        self.conv2 = nn.Conv2d(channels + units, channels, 3, padding=1)

    def keep_scale(self) -> None:
        """Initialise for a network without normalisation; what is added starts small."""
        keep_scale(self.conv1)
        keep_scale(self.conv2, 0.3 if self.residual else 2**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        y: Tensor = self.conv2(_rectified(x, self.conv1(x)))
        return y.add_(x) if self.residual else y


def _counts_batches(block: nn.Module) -> bool:
    return any(getattr(part, "track_running_stats", False) for part in block.modules())


class GLSC(nn.Module):
    """Global-local spatio-contextual block: residual blocks in series, then a 1x1 convolution.

    Parameters
    ----------
    channels, out_channels : int
        Channels in and out.
    count : int
        How many residual blocks.
    residual_block : callable
        ``residual_block(channels)`` builds one.
    share_weights : bool
        One block applied `count` times, as the report's code does, instead of `count` blocks.
    checkpointing : bool
        Recompute each block in the backward pass: less memory, a third more time in training.
        A block with batch norm is not: it would count each batch twice.

    Examples
    --------
    >>> GLSC(4, 8, count=2, residual_block=SCR)(torch.zeros(1, 4, 8, 8)).shape
    torch.Size([1, 8, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        count: int,
        residual_block: Callable[[int], nn.Module],
        *,
        share_weights: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.count = count
        self.checkpointing = checkpointing
        made = min(1, count) if share_weights else count
        self.blocks = nn.ModuleList(residual_block(channels) for _ in range(made))
        self.project = nn.Conv2d(channels, out_channels, 1)
        halos = [getattr(block, "halo", None) for block in self.blocks]
        self.halo = None if None in halos else sum(h for h in halos if h) * (count // max(1, made))

    def keep_scale(self) -> None:
        """Initialise for a network without normalisation; the blocks are asked one by one."""
        keep_scale(self.project)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, out_channels, H, W)."""
        return self.project(self.features(x))  # type: ignore[no-any-return]

    def features(self, x: Tensor) -> Tensor:
        """Give what is projected, (N, channels, H, W)."""
        for i in range(self.count):
            block = self.blocks[i % len(self.blocks)]
            if self.checkpointing and self.training and not _counts_batches(block):
                y = checkpoint(block, x, use_reentrant=False)
            else:
                y = block(x)
            if not isinstance(y, Tensor) or y.shape != x.shape:
                raise PluginError(
                    f"{getattr(block, 'enhancekit_origin', type(block).__name__)} gave "
                    f"{tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__} for "
                    f"{tuple(x.shape)}; a residual block keeps the shape"
                )
            if y.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
                raise PluginError(
                    f"{getattr(block, 'enhancekit_origin', type(block).__name__)} gave {y.dtype} "
                    f"for {x.dtype}; a residual block keeps the type"
                )
            x = y
        return x


class HSCDecoder(nn.Module):
    """Hierarchical spatio-contextual decoder: one 5x5 convolution.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels in and out.

    Examples
    --------
    >>> HSCDecoder(8, 4)(torch.zeros(1, 8, 6, 6)).shape
    torch.Size([1, 4, 6, 6])
    """

    halo = 2

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 5, padding=2)

    def keep_scale(self) -> None:
        """Initialise for a network without normalisation."""
        keep_scale(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        return self.conv(x)  # type: ignore[no-any-return]

    def merge(self, fine: Tensor, project: nn.Conv2d | None, coarse: Tensor) -> Tensor:
        """Give ``self(cat(project(fine), double(coarse)))`` in fewer operations."""
        return conv_of_project_and_double(fine, project, coarse, self.conv)


class Reconstruct(nn.Module):
    """From features to a picture, with the report's long skip from its own input.

    Parameters
    ----------
    in_channels : int
        Channels in.
    width : int
        The network's base width.
    norm : bool
        Batch norm after the first, second and fourth convolution (declared in the report).
    dropout : float
        Probability of dropping whole feature maps there (0.5 in the report).
    output : {"sigmoid", "residual"}
        ``"sigmoid"``: the picture itself, as the report has it. ``"residual"``: what is to be
        added to the network's input picture; the rectifiers then let a tenth through below 0.
    out_channels : int
        Channels out; 3 for each pixel that stands behind a place.

    Examples
    --------
    >>> Reconstruct(12, 4)(torch.zeros(1, 12, 6, 6)).shape
    torch.Size([1, 3, 6, 6])
    """

    halo = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        norm: bool = False,
        dropout: float = 0.0,
        output: str = "sigmoid",
        *,
        out_channels: int = 3,
    ) -> None:
        super().__init__()
        if output not in ("sigmoid", "residual"):
            raise OptionError(f"output is 'sigmoid' or 'residual', not {output!r}")
        self.output = output
        # what is added starts at 0; plain rectifiers then died, all w/2 of them, in two trainings
        slope = 0.1 if output == "residual" else 0.0

        def tail(channels: int) -> nn.Sequential:
            layers: list[nn.Module] = [nn.BatchNorm2d(channels)] if norm else []
            layers.append(nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True))
            if dropout:
                layers.append(nn.Dropout2d(dropout))
            return nn.Sequential(*layers)

        self.conv1 = nn.Conv2d(in_channels, 2 * width, 3, padding=1)
        self.tail1 = tail(2 * width)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.tail2 = tail(width)
        self.conv3 = nn.Conv2d(width + in_channels, width, 3, padding=1)
        self.conv4 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.tail4 = tail(width // 2)
        self.final = nn.Conv2d(width // 2, out_channels, 1)

    def keep_scale(self) -> None:
        """Initialise for a network without normalisation; what is added starts at 0."""
        keep_scale(self.conv1)
        keep_scale(self.conv2, 2**0.5)
        keep_scale(self.conv3, 1.2)  # a third of its input comes from a rectifier
        keep_scale(self.conv4)
        keep_scale(self.final, 0.0 if self.output == "residual" else 2**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        y = self.tail2(self.conv2(self.tail1(self.conv1(x))))
        y = self.conv3(torch.cat((y, x), dim=1))
        y = self.final(self.tail4(self.conv4(y)))
        # 0 * y: an overflow must not come out as white
        return y.sigmoid() + 0 * y if self.output == "sigmoid" else y  # type: ignore[no-any-return]
