"""Studies of what published methods do, run from the clone: python -m benchmarks.studies.NAME."""
