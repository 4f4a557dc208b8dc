"""MFNN assembled from block names: encoders, trunks, decoders and head at up to three scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from enhancekit.errors import OptionError, PluginError
from enhancekit.plugins import host
from enhancekit.specs import SizeRequirements
from enhancekit_mfnn.blocks import GLSC, HSCDecoder

if TYPE_CHECKING:
    from enhancekit.training.batches import Batch

__all__ = ["MFNN"]


def _part(role: str, name: str, *args: Any, **options: Any) -> nn.Module:
    """Create a registered block after making sure that it has the interface the place needs."""
    entry = host().blocks.get(name)
    if entry.spec.role != role:
        raise OptionError(
            f"{entry} has the role {entry.spec.role!r}, but MFNN needs {role!r} there; "
            f"blocks of that role: "
            + ", ".join(e.qualified_name for e in host().blocks.list() if e.spec.role == role)
        )
    module = entry.create(*args, **options)
    if not isinstance(module, nn.Module):
        raise PluginError(f"{entry} made a {type(module).__name__} instead of a torch.nn.Module")
    return module


def _unchanged(part: Any, kind: type[nn.Module]) -> bool:
    return isinstance(part, kind) and type(part).forward is kind.forward


def _triangle(t: Tensor) -> Tensor:
    return (1 - t).clamp(min=0)


def _cubic(t: Tensor, a: float = -0.5) -> Tensor:
    """Give Keys' kernel at distances t >= 0; a is -0.5 where bicubic interpolation shrinks."""
    near = ((a + 2) * t - (a + 3)) * t**2 + 1
    far = a * (((t - 5) * t + 8) * t - 4)
    return torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def _in_32_bits(device: str) -> AbstractContextManager[object]:
    known = torch.amp.is_autocast_available(device)  # "meta", used to count, knows no autocast
    return torch.autocast(device, enabled=False) if known else nullcontext()


def _shrink(
    picture: Tensor, scale: int, kernel: Callable[[Tensor], Tensor] = _triangle, reach: int = 1
) -> Tensor:
    """Shrink as antialiased interpolation by a kernel does, (N, C, H, W).

    Written as a convolution it has an ONNX form and takes half the time; what a kernel reaches
    beyond the picture is left out and the rest weighed up.
    """
    count = 2 * reach * scale - scale % 2
    places = torch.arange(count, dtype=picture.dtype, device=picture.device) - (count - 1) / 2
    taps = kernel(places.abs() / scale)
    padding = (count - scale) // 2

    def present(size: int) -> Tensor:
        ones = picture.new_ones(1, 1, size)
        return F.conv1d(ones, taps.view(1, 1, -1), stride=scale, padding=padding)

    channels = picture.shape[1]
    weight = torch.outer(taps, taps).expand(channels, 1, -1, -1)
    with _in_32_bits(picture.device.type):
        total = F.conv2d(picture, weight, stride=scale, padding=padding, groups=channels)
        height, width = present(picture.shape[2]), present(picture.shape[3])
    return total / (height.view(1, 1, -1, 1) * width.view(1, 1, 1, -1))


def _enlarge(picture: Tensor, scale: int) -> Tensor:
    """Enlarge as bicubic interpolation does, (N, C, H, W), in a third of its time."""
    places = (torch.arange(scale, dtype=picture.dtype, device=picture.device) + 0.5) / scale - 0.5
    taps = _cubic((places[:, None] - torch.arange(-2, 3, device=picture.device)).abs(), a=-0.75)
    channels = picture.shape[1]
    weight = torch.einsum("iy,jx->ijyx", taps, taps).reshape(scale**2, 1, 5, 5)
    with _in_32_bits(picture.device.type):
        padded = F.pad(picture, (2, 2, 2, 2), mode="replicate")
        phases = F.conv2d(padded, weight.repeat(channels, 1, 1, 1), groups=channels)
    return F.pixel_shuffle(phases, scale)


def _half(features: Tensor) -> Tensor:
    # the mean of four is as smooth as antialiased interpolation and much faster
    return F.avg_pool2d(features, 2)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear")


def _crop(x: Tensor, had: Sequence[int], left: Sequence[int], unit: int = 1) -> Tensor:
    """Narrow margins (top, bottom, left, right), in pixels, of features `unit` pixels apart."""
    if tuple(had) == tuple(left):
        return x
    top, bottom, before, behind = ((h - k) // unit for h, k in zip(had, left, strict=True))
    return x[:, :, top : x.shape[2] - bottom, before : x.shape[3] - behind]


class MFNN(nn.Module):
    """Multi-scale feature network.

    Parameters
    ----------
    width : int
        Base width w. Even.
    counts : sequence of int
        Residual blocks at each scale, largest scale first; its length (1 to 3) is the number of
        scales.
    block, trunk, encoder, decoder, head : str
        Registered block names for the roles ``"residual"``, ``"trunk"``, ``"encoder"``,
        ``"decoder"`` and ``"head"``.
    block_options : mapping, optional
        Options for `block`.
    share_weights : bool
        One residual block per scale, applied several times.
    context : str
        Registered block of role ``"context"``, or empty for a purely local network.
    norm, dropout, output
        Handed to `head`; see `enhancekit_mfnn.blocks.Reconstruct`.
    scaled : bool
        Initialise so that the signal keeps its scale from end to end; blocks that have a method
        ``keep_scale`` are asked to. Otherwise torch's default, as the report had.
    checkpointing : bool
        Recompute residual blocks in the backward pass to save memory.
    pack : int
        Take squares of this many pixels apart into channels, as Shi et al. (CVPR 2016) put them
        together, and put them together at the end: the largest scale is then 1/pack.
    decoder_width : int
        Channels that trunks and decoders give; 0 for twice `width`, as the report has it.
    scale : int
        How many times the input's height and width the output has.
    back_projection : bool
        Shrink the enlarged picture again by an antialiased bicubic kernel and add, enlarged, what
        is then missing of the one given (Irani & Peleg, CVGIP 1991). For pictures that were
        shrunk that way or nearly so: it brings noise back, too.

    Notes
    -----
    The reading of the student's report that defines it, with w the base width: e_k are the
    encoders' features of the picture at scale 1/2**k; m1 = e1, m2 = cat(e2, down(m1)),
    m3 = cat(e3, down(m2)); g_k = trunk(m_k); d2 = decoder(cat(g2, up(g3))),
    d1 = decoder(cat(g1, up(d2))); the picture is head(cat(d1, e1)).

    Examples
    --------
    >>> net = MFNN(width=4, counts=(1, 1), output="sigmoid").eval()
    >>> net(torch.zeros(1, 3, 8, 12)).shape
    torch.Size([1, 3, 8, 12])
    """

    takes_margins = True

    def __init__(
        self,
        width: int = 16,
        counts: Sequence[int] = (2, 4, 10),
        *,
        block: str = "mfnn:scr",
        block_options: dict[str, Any] | None = None,
        trunk: str = "mfnn:glsc",
        encoder: str = "mfnn:hsc_encoder",
        decoder: str = "mfnn:hsc_decoder",
        head: str = "mfnn:reconstruct",
        context: str = "",
        share_weights: bool = False,
        norm: bool = False,
        dropout: float = 0.0,
        output: str = "residual",
        scaled: bool = True,
        checkpointing: bool = False,
        pack: int = 1,
        decoder_width: int = 0,
        scale: int = 1,
        back_projection: bool = False,
    ) -> None:
        super().__init__()
        if min(pack, scale) < 1:
            raise OptionError(f"pack and scale are at least 1, not {pack} and {scale}")
        if scale > 1 and output != "residual":
            raise OptionError(f"scale={scale} needs output='residual', not {output!r}")
        if back_projection and scale == 1:
            raise OptionError("back_projection needs a scale above 1")
        if width < 2 or width % 2:
            raise OptionError(f"width must be an even number of at least 2, not {width}")
        if decoder_width < 0:
            raise OptionError(f"decoder_width is at least 0, not {decoder_width}")
        if not 1 <= len(counts) <= 3 or min(counts) < 0:
            raise OptionError(f"counts needs 1 to 3 numbers of at least 0, not {tuple(counts)}")
        self.scales = len(counts)
        self.output, self.pack, self.scale = output, pack, scale
        self.back_projection = back_projection
        # any class with the methods that `enhancekit_mfnn.context` lists
        self.context_block: Any = _part("context", context) if context else None
        self.context_grid = getattr(self.context_block, "context_grid", None) if context else 0
        channels = (3 + int(getattr(self.context_block, "extra_channels", 0))) * pack**2
        # a head that knows nothing of packing is asked for a picture and gives one
        packed = {"out_channels": 3 * (pack * scale) ** 2} if pack * scale > 1 else {}
        decoded = decoder_width or 2 * width
        residual = partial(_part, "residual", block, **(block_options or {}))
        levels = range(self.scales)
        self.encoders = nn.ModuleList(_part("encoder", encoder, channels, width) for _ in levels)
        self.trunks = nn.ModuleList(
            _part(
                "trunk",
                trunk,
                width * (k + 1),
                decoded,
                count=counts[k],
                residual_block=residual,
                share_weights=share_weights,
                checkpointing=checkpointing,
            )
            for k in levels
        )
        self.decoders = nn.ModuleList(
            _part("decoder", decoder, (1 if k == self.scales - 1 else 2) * decoded, decoded)
            for k in range(max(1, self.scales - 1))
        )
        self.head = _part(
            "head",
            head,
            decoded + width,
            width,
            norm=norm,
            dropout=dropout,
            output=output,
            **packed,
        )
        if scaled:
            for module in self.modules():
                if callable(keep_scale := getattr(module, "keep_scale", None)):
                    keep_scale()
        multiple = pack * 2 ** (self.scales - 1)
        self.size_requirements = SizeRequirements(
            multiple_of=multiple, minimum=multiple, halo=self._halo(), scale=scale
        )
        self._kept = self._kept_margins()

    def context(self, whole: Tensor, **controls: Tensor) -> Tensor | None:
        """Decide what depends on the whole picture, (N, 3, H, W), if there is such a thing.

        Parameters
        ----------
        whole : Tensor
            The whole picture.
        **controls : Tensor
            What the context block can be told, shape (N,): ``exposure``, say.
        """
        if self.context_block is None:
            return None
        found: Tensor = self.context_block.context(whole, **controls)
        return found

    def context_for(self, batch: Batch) -> Tensor | None:
        """Give the context that suits a batch whose references are known (training)."""
        if self.context_block is None:
            return None
        found: Tensor = self.context_block.context_for(batch)
        return found

    def context_loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Tell how far decisions on whole inputs are off (training)."""
        if not hasattr(self.context_block, "loss"):
            return inputs.new_zeros(())
        loss: Tensor = self.context_block.loss(inputs, targets)
        return loss

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        margins: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> Tensor:
        """Map (N, 3, H, W) in [0, 1] to the same, height and width times `scale`.

        Height and width are multiples of 4 times `pack` (three scales). Without `context`, `x` is
        taken to be the whole picture. The result leaves out `margins`, as many pixels at the top,
        bottom, left and right, which are only looked at, and that no further in than needed.
        """
        if self.context_block is None:
            seen = x
        else:
            seen = self.context_block(x, self.context(x) if context is None else context)
        packed = F.pixel_unshuffle(seen, self.pack) if self.pack > 1 else seen
        if x.is_contiguous(memory_format=torch.channels_last):
            # what comes before may have laid it out anew, which the first layers pay for six times
            packed = packed.contiguous(memory_format=torch.channels_last)
        pictures = [packed, *(_shrink(packed, 2**k) for k in range(1, self.scales))]
        encoded = [encode(picture) for encode, picture in zip(self.encoders, pictures, strict=True)]
        merged = [encoded[0]]
        for k in range(1, self.scales):
            merged.append(torch.cat((encoded[k], _half(merged[-1])), dim=1))
        left = [tuple(min(m, keep) for m in margins) for keep in self._kept]
        merged = [
            _crop(features, margins, left[k], 2**k * self.pack) for k, features in enumerate(merged)
        ]
        decoded = self.trunks[-1](merged[-1])
        if self.scales == 1:
            decoded = self.decoders[0](decoded)
        for k in reversed(range(self.scales - 1)):
            coarse = _crop(decoded, left[k + 1], left[k], 2 ** (k + 1) * self.pack)
            decoded = self._decode(k, merged[k], coarse)
        y: Tensor = self.head(torch.cat((decoded, merged[0]), dim=1))
        if self.pack * self.scale > 1:
            y = F.pixel_shuffle(y, self.pack * self.scale)
        if self.output == "residual":
            given = _crop(seen[:, :3], margins, left[0])
            base = _enlarge(given.float(), self.scale) if self.scale > 1 else given
            y = base + 0.1 * y  # a tenth: Adam moves the last layer as fast as all others
            if self.back_projection:
                y = y + _enlarge(given - _shrink(y, self.scale, _cubic, reach=2), self.scale)
        y = _crop(y, tuple(m * self.scale for m in left[0]), (0, 0, 0, 0))
        # infinity becomes NaN, so that an overflow is noticed and not taken for black or white
        return y if self.training else y.clamp(0, 1) + 0 * y

    def _decode(self, k: int, merged: Tensor, coarse: Tensor) -> Tensor:
        """Give decoder(cat(trunk(merged), double(coarse))) at scale k."""
        trunk: Any = self.trunks[k]
        decoder: Any = self.decoders[k]
        # a class derived from ours with a forward of its own is called as any other
        if not _unchanged(decoder, HSCDecoder):
            y: Tensor = decoder(torch.cat((trunk(merged), _double(coarse)), dim=1))
            return y
        if _unchanged(trunk, GLSC):
            y = decoder.merge(trunk.features(merged), trunk.project, coarse)
        else:
            y = decoder.merge(trunk(merged), None, coarse)
        return y

    def _kept_margins(self) -> list[int]:
        """Tell, for each scale, how many pixels beyond its own a tile's features must reach."""
        if self.size_requirements.halo is None:  # then there are no tiles
            return [0] * self.scales
        unit = self.size_requirements.multiple_of
        kept, beyond = [], int(self.head.halo)  # type: ignore[arg-type]
        for k, trunk in enumerate(self.trunks):
            if k < len(self.decoders):
                beyond += int(self.decoders[k].halo) * 2**k  # type: ignore[arg-type]
            doubling = 2 ** (k + 1) if k < self.scales - 1 else 0
            reach = beyond + max(int(trunk.halo) * 2**k, doubling)  # type: ignore[arg-type]
            # rounded up to whole pixels of the coarsest scale
            reach = self._with_base((reach + 1) * self.pack - 1)
            kept.append(-(-reach // unit) * unit)
            beyond += doubling
        # a coarser scale is cropped to what a finer one needs, so it can't have less
        return list(accumulate(kept, max))

    def _halo(self) -> int | None:
        """Add up how far each block looks, in pixels of the full size, along the longest path."""
        parts = [*self.encoders, *self.trunks, *self.decoders, self.head]
        if any(getattr(part, "halo", None) is None for part in parts):
            return None
        reach: list[int] = []  # of the merged features at each scale
        for k, encode in enumerate(self.encoders):
            own = int(encode.halo) * 2**k  # type: ignore[arg-type]
            # the shrunken picture looks half a pixel of its scale further; pooling does not
            path = 2**k // 2 + own
            reach.append(max(path, reach[-1]) if reach else path)
        total = 0
        for k in reversed(range(self.scales)):
            here = reach[k] + int(self.trunks[k].halo) * 2**k  # type: ignore[arg-type]
            # doubling looks one pixel of the coarser scale beyond
            total = max(here, total + 2 ** (k + 1)) if total else here
            if k < len(self.decoders):
                total += int(self.decoders[k].halo) * 2**k  # type: ignore[arg-type]
        total += int(self.head.halo)  # type: ignore[arg-type]
        return self._with_base((total + 1) * self.pack - 1)  # a packed place looks at pack pixels

    def _with_base(self, reach: int) -> int:
        """Count what stands beside the network in an enlarged picture, two pixels for a kernel."""
        if self.scale == 1:
            return reach
        return max(reach, 2) + (4 if self.back_projection else 0)
