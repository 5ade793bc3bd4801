"""Inference of btkeras' networks beside its peers: ``python -m benchmarks.inference``."""
