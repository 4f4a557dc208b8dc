"""Classical enhancers as a plugin for enhancekit: what networks are compared with."""
