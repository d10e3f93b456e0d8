"""An API server of dictionaries, the controllers behind it, and pods that answer on their Control port: what
the operator meets in a cluster, in one process and without waiting.

It speaks HTTP, so that the operator's own client is what is tested. It does what Kubernetes documents and
nothing else: what it lacks is refused, never guessed. The live tests ask the same of real servers.
"""
