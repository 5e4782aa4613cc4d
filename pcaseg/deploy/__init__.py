"""The folded model: what the reference computes, with everything removed that can be removed exactly."""
