"""Results: records and the statistics drawn from them."""
