"""Model files that spandrel reads, as enhancers of enhancekit."""
