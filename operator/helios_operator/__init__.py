"""The HELIOS operator: a typed API, pure decisions, and two ways to carry them out (a cluster, one
machine).
"""
