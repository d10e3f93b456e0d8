"""The Open Inference Protocol's door: tensors in and out, one call or a stream of many requests.

Registered by `rpc.server` beside helios.v1. What becomes of a request stands in `rpc.conversation`.
"""
