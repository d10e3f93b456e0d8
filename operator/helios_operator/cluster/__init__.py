"""The port to Kubernetes: API objects and the pods' telemetry as a Snapshot, a Plan as API calls.

Used by `app`, which lets kopf watch and calls `Operator`. Everything that is remembered stands in the API:
a restarted operator goes on where it was ended. It decides nothing and owns nothing outside the cluster.
"""
