"""What depth, precision of weights and precision of keys and values are worth beside each other under one
memory limit: `python -m bench.frontier`."""
