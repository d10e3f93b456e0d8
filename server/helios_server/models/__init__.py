"""Checkpoints, the decoder block and the layer-budget loader. Used by the engine, the profiler and exit
tuning."""
