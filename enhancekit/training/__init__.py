"""Training and evaluation: data, the loop, checkpoints, figures."""
