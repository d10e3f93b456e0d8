"""CPU kernels in C++: packed matrices, a segment of layers in one call, what a token is chosen by.

Used by the models and the engine where the processor has an instruction set that there are kernels for; all
else runs on torch, which is also what the kernels are tested against. Nothing here knows of models,
sequences or scheduling.
"""
