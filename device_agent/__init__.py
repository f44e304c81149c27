"""The board's side of edgepress: the standard library, numpy and one TFLite runtime; Python 3.9 syntax."""

__version__ = "0.1.0"
