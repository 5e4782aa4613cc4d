"""Everything that only an offline GPU machine can measure, in a few commands. Installed as `pcaseg.benchmarks.gpu`."""
