"""What every runtime does alike in a pass: its order, who owns what, what a pod is told, what a Job said.

Used by the runtimes, `local` and `cluster`, around `decide` and in front of their own world. It must know
neither processes nor an API server, and it decides nothing.
"""
