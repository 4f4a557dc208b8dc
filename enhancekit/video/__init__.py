"""Videos, frame by frame, with everything else of the file copied; needs ``enhancekit[video]``."""

from __future__ import annotations

from enhancekit.video.files import enhance_video

__all__ = ["enhance_video"]
