"""Studies of published methods, run from the clone: python -m benchmarks.studies.NAME."""
