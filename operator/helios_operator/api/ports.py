"""The ports of a serving pod, as `helios serve` is told them and as everything around it names them."""

from __future__ import annotations

GENERATION = 8033
CONTROL = 8034
METRICS = 8035
HTTP = 8000
BY_NAME = {"grpc": GENERATION, "control": CONTROL, "metrics": METRICS, "http": HTTP}
"""As the pods' container names them. HTTP is there unless `spec.service.httpPort` is 0."""
