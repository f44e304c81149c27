"""The host side of edgepress: everything that may import TensorFlow."""
