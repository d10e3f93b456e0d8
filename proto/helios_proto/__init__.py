"""Generated protobuf and gRPC stubs (`make proto`); the sources are in proto/helios/."""
