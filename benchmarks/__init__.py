"""Accuracy and latency against the eager model. Installed as `pcaseg.benchmarks`."""
