"""Training: the reference tasks, and the epochs that compression steps add."""
