"""MFNN, a multi-scale feature network for image enhancement, as an enhancekit plugin."""
