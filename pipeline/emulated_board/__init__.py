"""An arm64 Debian in QEMU that stands in for a Raspberry Pi: made once, kept, started, reset, cut off from its power.

It is an ordinary SSH device to everything else, and known as emulated, so that none of its times is reported.
"""
