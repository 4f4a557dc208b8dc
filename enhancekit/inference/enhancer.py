"""`Enhancer`: a loaded enhancer, applied to pictures of any kind through one pipeline."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from enhancekit.errors import NonFiniteError, OptionError
from enhancekit.imaging.convert import open_image
from enhancekit.inference.device import precision_name
from enhancekit.inference.fast import fast_parts
from enhancekit.inference.parts import Part, Source, Whole, collect
from enhancekit.plain import is_number
from enhancekit.registry import Entry
from enhancekit.specs import EnhancerSpec
from enhancekit.weights import Card, save_weights

__all__ = ["Enhancer", "Run", "check_control"]

logger = logging.getLogger(__name__)

FACTS = frozenset(f.name for f in fields(Card)) - {"name", "backbone", "config"}
"""What a model card says besides which network its weights belong to."""

Image = TypeVar("Image")
Run = Callable[[Source, torch.dtype, Mapping[str, float], bool], Iterator[Part]]
"""Enhances a picture at a precision, with controls, and as the mean over eight orientations or
not, part by part; a part that comes again replaces what came before."""
MODES = ("exact", "fast", "best")


def check_control(name: str, value: Any, ends: tuple[float, float]) -> None:
    """Refuse what is no number within the range of a control.

    Examples
    --------
    >>> check_control("sigma", 60, (0, 50))
    Traceback (most recent call last):
    enhancekit.errors.OptionError: sigma lies between 0 and 50, not 60
    """
    low, high = ends
    if not is_number(value):
        raise OptionError(f"{name} is a number between {low:g} and {high:g}, not {value!r}")
    if not low <= value <= high:
        raise OptionError(f"{name} lies between {low:g} and {high:g}, not {value}")


class Enhancer:
    """An enhancer ready for use; made by `enhancekit.load`.

    Attributes
    ----------
    entry : Entry
        Its description and the plugin it came from.
    card : Card or None
        Model card of its weights; ``None`` for a function or an untrained network.
    module : torch.nn.Module or None
        The network, if it has one.
    device : torch.device
        Where it computes.
    precision : torch.dtype
        Precision of the convolutions.
    precision_reason : str
        Why that one.
    engine : str
        What computes the network, ``"torch"`` unless another was asked for.
    file_sha256 : str or None
        SHA-256 of the file of weights that a scheme such as ``file:`` loaded.

    Examples
    --------
    >>> import enhancekit, numpy as np
    >>> enhancer = enhancekit.load("gamma", gamma=0.5)
    >>> enhancer.enhance(np.full((1, 2), 0.25, np.float32))
    array([[0.5, 0.5]], dtype=float32)
    """

    def __init__(
        self,
        entry: Entry[EnhancerSpec],
        run: Run,
        *,
        card: Card | None = None,
        module: torch.nn.Module | None = None,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        precision_reason: str = "a function of 32-bit pixels",
        engine: str = "torch",
        saved_as: Card | None = None,
    ) -> None:
        self.entry = entry
        self.card = card
        self.module = module
        self.device = device
        self.precision = precision
        self.precision_reason = precision_reason
        self.engine = engine
        self.file_sha256: str | None = None
        self._run = run
        self._saved_as = saved_as

    def enhance(
        self, image: Image, *, strength: float = 1.0, mode: str = "exact", **controls: float
    ) -> Image:
        """Enhance a picture.

        Parameters
        ----------
        image : path-like, bytes, file, PIL.Image.Image, DeepPicture, numpy.ndarray or torch.Tensor
            An open file is read from where it stands. numpy: HxW, HxWx1, HxWx3 or HxWx4; torch: CHW
            or NCHW with 1, 3 or 4 channels; uint8, uint16, or float nominally in [0, 1]. A PIL
            image or file with an EXIF orientation is turned upright. Never changed.
        strength : float
            From 0, the picture as it came, to 1, the full effect.
        mode : {"exact", "fast", "best"}
            ``"fast"`` computes pictures of more than 0.45 megapixels on a small copy and carries
            the change over, so that its time hardly grows with the picture; noise finer than the
            copy's pixels stays. ``"best"`` takes the mean of what a network makes of the picture
            as it is, turned, and mirrored: eight times the work, for a tenth of a dB or two.
        **controls : float
            What the enhancer declares, e.g. ``exposure`` (mean brightness wanted, in [0, 1]).

        Returns
        -------
        same kind as `image`
            Same dtype and layout, and the size times the enhancer's scale; alpha unchanged (but
            enlarged with the picture); grey stays grey. A path, bytes or file gives a PIL image,
            or, for 16 bits in colour or with alpha, a `DeepPicture`. A colour profile is
            respected: pixels are converted to sRGB and what changes in them back.

        Raises
        ------
        ImageError
            If the picture cannot be read or is of an unsupported kind.
        OptionError
            If `strength` or a control is out of range, a control is unknown, or the mode is none
            this enhancer has.
        NonFiniteError
            If the result is not finite, also when computed in 32 bits.
        OutOfMemoryError
            If the memory does not suffice, however small the tiles.
        PluginError
            If a plugin's code fails; names the block and the plugin.
        """
        self.check(strength=strength, mode=mode, **controls)
        strength = float(strength)
        opened = open_image(image)
        if strength == 0:
            return opened.copy()  # type: ignore[no-any-return]
        canvas = opened.canvas(self.entry.spec.scale)
        for rows, columns, pixels in self._parts(opened, mode, controls):
            if strength < 1:
                pixels = opened.read(rows, columns).lerp(pixels, strength)  # noqa: PLW2901
            canvas.write(rows, columns, pixels)
        return canvas.close()  # type: ignore[no-any-return]

    def check(self, *, strength: float = 1.0, mode: str = "exact", **controls: float) -> None:
        """Refuse what `enhance` would refuse of any picture.

        Raises
        ------
        OptionError
            If `strength` or a control is out of range, a control is unknown, or the mode is none
            this enhancer has.

        Examples
        --------
        >>> import enhancekit
        >>> enhancekit.load("gamma").check(strength=2)
        Traceback (most recent call last):
        enhancekit.errors.OptionError: strength lies between 0 (as it came) and 1, not 2
        """
        if not is_number(strength) or not 0 <= strength <= 1:
            raise OptionError(f"strength lies between 0 (as it came) and 1, not {strength!r}")
        if strength < 1 and self.entry.spec.scale > 1:
            raise OptionError(
                f"{self.entry} enlarges, so its result cannot be mixed with the picture as it "
                "came; leave strength at 1"
            )
        self._check_mode(mode)
        self._check_controls(controls)

    def run(self, pictures: Tensor, *, mode: str = "exact", **controls: float) -> Tensor:
        """Enhance float pictures of shape (N, 3, H, W); the pipeline without its two ends.

        `mode` as in `enhance`.

        Raises
        ------
        OptionError
            If a control is unknown or out of range, the mode is none this enhancer has, or the
            pictures are of another shape or kind.
        NonFiniteError
            If the result is not finite, also when computed in 32 bits.
        OutOfMemoryError
            If the memory does not suffice, however small the tiles.
        PluginError
            If a plugin's code fails; names the block and the plugin.
        """
        self._check_mode(mode)
        self._check_controls(controls)
        if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
            raise OptionError(
                f"run takes floats of shape (N, 3, H, W), not {pictures.dtype} of "
                f"{tuple(pictures.shape)}; enhance takes other kinds"
            )
        pictures = pictures.float()
        height, width = (side * self.entry.spec.scale for side in pictures.shape[2:])
        return collect(self._parts(Whole(pictures), mode, controls), height, width)

    def _parts(self, source: Source, mode: str, controls: Mapping[str, float]) -> Iterator[Part]:
        if mode == "fast":
            return fast_parts(lambda small: self.run(small, mode="exact", **controls), source)
        return self._finite_parts(source, controls, mode == "best")

    def _finite_parts(
        self, source: Source, controls: Mapping[str, float], turned: bool
    ) -> Iterator[Part]:
        """Give finite parts, all of them again in 32 bits if need be."""
        for part in self._run(source, self.precision, controls, turned):
            if torch.isfinite(part.pixels).all():
                yield part
                continue
            if self.precision == torch.float32:
                self._refuse(part)
            logger.warning(
                "%s gave non-finite pixels in %s; computing again in 32 bits",
                self.entry.qualified_name,
                precision_name(self.precision),
            )
            del part
            break
        else:
            return
        for part in self._run(source, torch.float32, controls, turned):
            if not torch.isfinite(part.pixels).all():
                self._refuse(part)
            yield part

    def _refuse(self, part: Part) -> NoReturn:
        bad = int((~torch.isfinite(part.pixels)).sum())
        raise NonFiniteError(
            f"{self.entry} gave {bad} values that are NaN or infinite, in 32 bits; its "
            "weights or one of its blocks are broken"
        )

    def computed_by(self, call: Callable[[Callable[[], Part | None]], Part | None]) -> Enhancer:
        """Return this enhancer with its computing handed over, e.g. to a thread of its own.

        Parameters
        ----------
        call : callable
            Given a function without arguments, calls it, wherever, and returns what it gave: a
            part of the result, or ``None`` after the last.

        Examples
        --------
        >>> import enhancekit, numpy as np
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(1) as pool:
        ...     elsewhere = enhancekit.load("gamma", gamma=0.5).computed_by(
        ...         lambda function: pool.submit(function).result()
        ...     )
        ...     elsewhere.enhance(np.full((1, 2), 0.25, np.float32))
        array([[0.5, 0.5]], dtype=float32)
        """

        def run(
            source: Source, dtype: torch.dtype, controls: Mapping[str, float], turned: bool
        ) -> Iterator[Part]:
            parts = self._run(source, dtype, controls, turned)
            while (part := call(lambda: next(parts, None))) is not None:
                yield part

        return self.running(run)

    def running(self, run: Run) -> Enhancer:
        """Return this enhancer with another way of computing."""
        other = object.__new__(Enhancer)
        other.__dict__.update(self.__dict__, _run=run)
        return other

    def save(self, path: str | os.PathLike[str], **facts: Any) -> None:
        """Write the network's weights, to be loaded again by ``load(name, weights=path)``.

        Parameters
        ----------
        path : path-like
            Ends in ``.safetensors``; replaced if it exists.
        **facts
            What the model card is to say, over what it says now: ``license``, ``data``, ``task``,
            ``figures``, ``limits``, ``training``, ``date`` or ``parity_db``.

        Raises
        ------
        OptionError
            If it is a function, its weights are of another format, or a fact has no place in a
            card.
        WeightsError
            If the file cannot be written.
        """
        if self.module is None or self._saved_as is None:
            raise OptionError(
                f"{self.entry} has no weights that can be saved; only a registered network has"
            )
        if unknown := sorted(set(facts) - FACTS):
            raise OptionError(
                f"a model card has no place for {', '.join(unknown)}, only for "
                + ", ".join(sorted(FACTS))
            )
        save_weights(path, self.module.state_dict(), replace(self._saved_as, **facts))

    def _check_mode(self, mode: str) -> None:
        if mode not in MODES:
            raise OptionError(f"mode is {', '.join(map(repr, MODES))}, not {mode!r}")
        if mode == "fast" and self.entry.spec.scale > 1:
            raise OptionError(f"{self.entry} enlarges, which mode='fast' cannot; use 'exact'")
        if mode == "best" and self.entry.spec.target:
            raise OptionError(
                f"{self.entry} is a function, which mode='best' makes no better; use 'exact'"
            )

    def _check_controls(self, controls: Mapping[str, float]) -> None:
        known = self.entry.spec.controls
        for name, value in controls.items():
            if name not in known:
                raise OptionError(
                    f"{self.entry} has no control {name!r}; it has "
                    + (", ".join(sorted(known)) or "none")
                )
            check_control(name, value, known[name])

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be copied or sent to another process; call enhancekit.load there "
            "(and start processes by spawn, since torch's threads do not survive a fork)"
        )

    def __repr__(self) -> str:
        how = precision_name(self.precision)
        how += "" if self.engine == "torch" else f" by {self.engine}"
        return f"<Enhancer {self.entry.qualified_name} on {self.device} in {how}>"
