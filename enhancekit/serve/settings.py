"""What a server offers, and how much it takes on."""

from __future__ import annotations

from dataclasses import dataclass, field

from enhancekit.errors import OptionError

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server offers, and how much it takes on.

    Raises
    ------
    OptionError
        If a limit is not above zero, or the token is too short to keep anybody out.

    Examples
    --------
    >>> Settings(queue=0)
    Traceback (most recent call last):
    enhancekit.errors.OptionError: queue is at least 1, not 0
    """

    enhancers: tuple[str, ...] = ()
    """Names as `enhancekit.load` takes them, the default first; empty: all that can be used."""
    device: str = "auto"
    """As for `enhancekit.load`, and so are `precision` and `tile`."""
    precision: str = "auto"
    tile: str | int | None = "auto"
    max_bytes: int = 64_000_000
    """Larger uploads are cut off while they come in."""
    max_pixels: int = 50_000_000
    """Larger pictures, and ones whose results would be, are refused by their headers."""
    queue: int = 32
    """Pictures in hand or waiting; beyond, requests are told to come back later."""
    timeout: float = 120.0
    """Seconds a picture may wait and take."""
    upload_timeout: float = 60.0
    """Seconds an upload may take."""
    token: str | None = field(default=None, repr=False)
    """What every request but those for the page and ``/healthz`` must show."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "queue"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is at least 1, not {getattr(self, name)}")
        for name in ("timeout", "upload_timeout"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} is above 0 seconds, not {getattr(self, name)}")
        if self.token is not None and (
            len(self.token) < 16 or not self.token.isascii() or not self.token.isprintable()
        ):
            raise OptionError("the token needs at least 16 printable ASCII characters")
