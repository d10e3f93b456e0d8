"""Speaking to a serving pod's Control port: the limits document, telemetry, and the client that carries them.

Used by everything that observes and applies (one machine now, a cluster later). It decides nothing and
keeps nothing.
"""
