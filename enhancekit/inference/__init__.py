"""From a float tensor to an enhanced one: device, precision, padding, tiles, and the `Enhancer`."""
