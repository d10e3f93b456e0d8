"""The HELIOS server: early-exit models, their exits, the engine and its doors."""

__version__ = "0.1.0"
