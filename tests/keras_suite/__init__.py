"""Keras' own layer tests, run with cnnkern in place of Keras' computations."""
