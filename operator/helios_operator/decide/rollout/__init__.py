"""How a choice becomes what serves: the next step of a change, and the status that tells of it.

The top floor of `decide`; stands on all others.
"""
