"""From a bare board to a running agent: probe, choose a runtime, build a bundle, install it, and take it away again."""
