"""OpenAI's HTTP API as a door of the same conversation: chat completions, completions, models.

Opened by `rpc.server` on a port of its own. What a client may ask stands in `fields`; nothing here may be
accepted and ignored.
"""
