"""A fuzzer of everything that a worker reads: events, labels, the training log, control records and snapshots.

`inputs` makes them, `worker` runs the worker's own code on them without a broker and accounts for every record, `run`
has lives of workers. `test_fuzz` is the short version, `python -m tests.fuzz` the long one.
"""
