"""Data sets: scenes that the project renders itself, and the published ones on disk."""
