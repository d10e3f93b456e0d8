"""What is missing in the history table, and which Jobs fill it in which order.

Stands on `weigh` (what is already out of the race is not measured) and `facts`.
"""
