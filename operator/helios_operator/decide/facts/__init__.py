"""What is there, named: the revisions by their role, who competes, and what was measured.

The ground floor of `decide`: read by every other room, imports none of them. It must not weigh or choose.
"""
