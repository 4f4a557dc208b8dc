"""Turn a pickled model into safetensors: ``python -m enhancekit_spandrel model.pth``."""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

from enhancekit.errors import EnhanceKitError, WeightsError
from enhancekit_spandrel.files import spandrel

__all__ = ["convert"]


def convert(path: Path) -> Path:
    """Write ``model.safetensors`` beside ``model.pth``, read by spandrel's restricted unpickler.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    WeightsError
        If it cannot be read, or the target exists already.
    """
    target = path.with_suffix(".safetensors")
    if target.exists():
        raise WeightsError(f"{target} exists already; move it away first")
    try:
        state = spandrel().ModelLoader().load_state_dict_from_file(path)
        save_file({k: v.clone().contiguous() for k, v in state.items()}, target)
    except EnhanceKitError:
        raise
    except Exception as error:  # unpickling fails in many ways
        raise WeightsError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m enhancekit_spandrel model.pth")
    try:
        sys.stdout.write(f"wrote {convert(Path(sys.argv[1]))}\n")
    except EnhanceKitError as error:
        sys.exit(f"error: {error}")
