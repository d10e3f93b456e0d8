"""The HELIOS server: early-exit models, their exits, the engine and its doors."""

import os

__version__ = "0.2.0"

# Read by OpenMP once, when torch loads it. By default its threads spin for milliseconds before they sleep,
# which makes everything several times slower as soon as anything else wants the same cores (a profiling Job
# beside a pod, say); microseconds cost little when nothing does.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
