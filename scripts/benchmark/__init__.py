"""Inference of btkeras' networks beside its peers: ``python -m scripts.benchmark``."""
