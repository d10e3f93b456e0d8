"""Load on a pod through its doors, from another process: latencies, goodput, and what the doors cost."""
