"""The serving engine: sequences, scheduling, the paged KV cache, execution at a depth, audit and changes of
limits.

Import from the module that holds the name (`helios_server.engine.engine.Engine`); this package imports
nothing, so that the scheduler can be used without torch.
"""
