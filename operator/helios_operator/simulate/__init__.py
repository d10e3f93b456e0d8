"""A world in which Plans have consequences and time is an argument: what `helios simulate` replays
traffic in, and what the tests of the decisions run in.

Knows of the decisions what a runtime knows: a Snapshot goes in, a Plan comes out. It must not import torch or
grpc, nor read a clock.
"""
