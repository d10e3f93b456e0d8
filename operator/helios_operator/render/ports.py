"""The ports of a serving pod, as `helios serve` is told them and as everything around it names them."""

from __future__ import annotations

GENERATION = 8033
CONTROL = 8034
METRICS = 8035
