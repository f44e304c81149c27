"""The reference tasks: every module here is one, with its data, network, training and metric.

What they share lies in the packages ``datasets`` and ``training``.
"""
