"""Variants of experiments that several tests build."""

FIVE = """\
  float32: []
  float16:
    - quantization: {mode: float16}
  dynamic_range:
    - quantization: {mode: dynamic_range}
  int8:
    - quantization: {mode: int8}
  pruned_int8:
    - magnitude_pruning: {epochs: 3, batch_size: 32}
    - quantization: {mode: int8}
"""
