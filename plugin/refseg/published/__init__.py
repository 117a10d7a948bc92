"""The published benchmarks, one command each: read as they are released, run, scored, put beside published rows."""
