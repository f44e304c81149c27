"""From a model and its variants to artifacts: what is built, in which process, and what each step did."""
