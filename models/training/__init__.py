"""What the training of the reference tasks shares."""
