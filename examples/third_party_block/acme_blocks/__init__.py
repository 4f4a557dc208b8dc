"""An example of a third party's blocks for enhancekit."""
