"""The reference tasks, one module each: data, network, training and metric."""
