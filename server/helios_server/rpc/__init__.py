"""The doors of a serving pod: gRPC for applications and for the operator, HTTP for probes and metrics.

Translates between the protocols and the engine, and owns a pod's life from bound ports to the last drained
stream. Nothing below imports it. It must not decide anything about models, and the event loop must not wait
for the engine.
"""
