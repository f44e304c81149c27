"""Data sets: what one is, where it may come from, and how it is checked."""
