"""What a serving pod tells of itself beside the engine's own statistics: Prometheus metrics, energy, live
prompts.

Used by `rpc/` and `profile/`. It must not change what is served.
"""
