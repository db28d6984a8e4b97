"""What ``python -m benchmarks.speed`` is made of."""
