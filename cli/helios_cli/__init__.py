"""The `helios` command: a verb per file, and nothing that another package could do.

It stands on top of everything and is imported by nothing.
"""
