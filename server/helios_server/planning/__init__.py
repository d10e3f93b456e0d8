"""The two laws that the engine and the decisions share: how much memory a depth takes, how long a step
lasts.

Pure Python: no torch, no numpy, no I/O, so that the operator's image can carry it.
`helios_server.engine` and `helios_server.profile` measure the facts, `helios_operator.decide` predicts
with them; neither has a formula of its own.
"""

PERFORMANCE_VERSION = 4
"""Raised when the engine becomes faster or slower, or the law takes other figures: timings taken under
another version are measured again."""
