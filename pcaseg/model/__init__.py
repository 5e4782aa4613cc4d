"""The eager reference: what the published model computes, one idea of the paper per file."""
