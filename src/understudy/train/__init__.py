"""Training: a thin loop over engines. The numerical core is `runner` (micro-batches), `loss`, and `attention`."""
