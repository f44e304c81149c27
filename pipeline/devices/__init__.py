"""Boards: the inventory, and the transports that reach them."""
