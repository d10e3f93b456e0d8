"""Generated protobuf and gRPC stubs (`make proto`; the sources are in proto/helios/) and the client that
uses them.
"""

__version__ = "0.2.0"
