"""Whole folders: what is to be done, doing it side by side, and a manifest to go on from."""

from __future__ import annotations

from enhancekit.batch.cluster import Ray
from enhancekit.batch.folder import Result, enhance_folder
from enhancekit.batch.listing import Shard
from enhancekit.batch.manifest import Record, read_manifests

__all__ = ["Ray", "Record", "Result", "Shard", "enhance_folder", "read_manifests"]
