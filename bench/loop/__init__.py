"""The closed loop, measured against what stays as it is: one trace, replayed by every arm."""
