"""The rules that hold at every moment, as watchers of a simulated world: each looks at every pass and
complains.

A watcher knows the rule, not the code: it judges what a Plan does to the world that it saw.
"""
