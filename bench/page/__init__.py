"""docs/benchmarks.md, written from the committed results."""
