"""Which device and which precision: what was asked for, checked against what there is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from enhancekit.errors import DeviceError, OptionError

__all__ = [
    "PARITY_DB",
    "PRECISIONS",
    "choose_device",
    "choose_precision",
    "native_precisions",
    "precision_name",
]

PARITY_DB = 50.0
"""PSNR against 32 bits that a card must state before ``"auto"`` uses a lower precision."""

PRECISIONS: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""Those that can be asked for, by name."""


def precision_name(dtype: torch.dtype) -> str:
    """Name a precision as it is asked for.

    Examples
    --------
    >>> precision_name(torch.bfloat16)
    'bf16'
    """
    return next(name for name, known in PRECISIONS.items() if known == dtype)


def choose_device(device: str) -> torch.device:
    """Turn a name into a device that exists.

    Parameters
    ----------
    device : str
        ``"auto"`` (CUDA if there is one, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises
    ------
    DeviceError
        If there is no such device on this machine.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise DeviceError(
            f"{device!r} is no device; use 'auto', 'cpu', 'cuda' or 'cuda:N'"
        ) from None
    if chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {device!r} is not supported; use 'auto', 'cpu' or 'cuda'")
    count = torch.cuda.device_count()
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= count):
        raise DeviceError(
            f"device {device!r} was asked for, but this machine has {count} CUDA devices usable "
            f"by torch {torch.__version__}; use device='cpu' or 'auto'"
        )
    return chosen


def _computes_natively(device: torch.device, name: str) -> bool:
    if device.type == "cuda":
        return name == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "fp16":
        return False
    # older versions of torch cannot be asked, and then 32 bits are the safe answer
    asked: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(asked.get(ability, False) for ability in ("avx512_bf16", "amx_bf16", "bf16"))


def native_precisions(device: torch.device) -> list[str]:
    """Return the precisions below 32 bits that a device computes without emulation.

    Examples
    --------
    >>> "fp16" in native_precisions(torch.device("cpu"))
    False
    """
    return [name for name in ("bf16", "fp16") if _computes_natively(device, name)]


def choose_precision(
    precision: str,
    device: torch.device,
    parity_db: Mapping[str, float],
    native: Collection[str] | None = None,
) -> tuple[torch.dtype, str]:
    """Decide the precision, and say why.

    Parameters
    ----------
    precision : str
        ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    device : torch.device
        Where it is computed.
    parity_db : mapping of str to float
        What the weights' card states per precision.
    native : collection of str, optional
        What is computed natively; by default what torch computes so on the device.

    Returns
    -------
    dtype : torch.dtype
        The precision.
    reason : str
        One line.

    Raises
    ------
    OptionError
        If the name is none of these.

    Examples
    --------
    >>> choose_precision("auto", torch.device("cpu"), {})
    (torch.float32, 'no measured parity of a lower precision')
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise OptionError(
                f"precision {precision!r} is none of 'auto', {', '.join(map(repr, PRECISIONS))}"
            )
        return PRECISIONS[precision], "asked for"
    stated = {name: db for name, db in parity_db.items() if db >= PARITY_DB}
    if not stated:
        return torch.float32, "no measured parity of a lower precision"
    for name in ("bf16", "fp16"):
        if name in stated and (
            _computes_natively(device, name) if native is None else name in native
        ):
            reason = f"native here, and {stated[name]:.0f} dB from 32 bits by the card"
            return PRECISIONS[name], reason
    return torch.float32, f"{device.type} computes none of {sorted(stated)} natively"
