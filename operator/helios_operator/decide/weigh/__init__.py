"""What could serve, what would be best, and whether now is the time to change to it.

Stands on `facts`; read by `measure` and `rollout`. It must not act: its outcome is an option and a reason.
"""
