"""The layouts of the published benchmarks, read in full."""
