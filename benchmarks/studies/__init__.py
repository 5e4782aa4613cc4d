"""Measurements that tables of the documentation are made from. Installed as `pcaseg.benchmarks.studies`."""
