"""One machine in place of a cluster: pods and Jobs are processes, objects are files, the Service is a
forwarder.

The same port as a cluster's: `observe` builds the Snapshot that `decide` reads, the hands of `apply` write
what its Plan asks, and processes settle. Used by `helios up`, the demo and the tests through
`local.runtime.LocalRuntime`. It makes no decision of its own.
"""
