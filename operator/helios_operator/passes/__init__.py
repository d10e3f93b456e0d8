"""What every runtime does alike around a pass: the queue of keys, words for actions, what a Job said.

Used by the runtimes, `local` and `cluster`, between `decide` and their own world. It must know neither
processes nor an API server, and it decides nothing.
"""
