"""The rows of `benchmarks/gpu.py`, and the training step that they and `benchmarks/steps.py` measure."""
