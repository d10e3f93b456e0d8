"""`helios bench engine`: this engine and others on the same prompts, each in a process of its own."""
