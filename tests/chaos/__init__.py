"""What is done to workers, brokers and clocks, and what must be true afterwards: docs/reliability.md."""
