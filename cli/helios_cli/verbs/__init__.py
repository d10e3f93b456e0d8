"""One module per verb, each with `run(argv) -> exit status`. Imported by `main` only when asked for."""
