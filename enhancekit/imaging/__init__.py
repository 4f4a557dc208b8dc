"""Pixels in and out: files, and any kind of picture to a float tensor and back."""
