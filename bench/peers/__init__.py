"""Headwater against others that do the same work; `python -m bench.peers` runs all and writes docs/performance.md."""
