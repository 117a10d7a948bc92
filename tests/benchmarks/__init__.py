"""The arithmetic behind the figures that benchmarks print."""
