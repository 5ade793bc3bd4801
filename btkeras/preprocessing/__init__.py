"""Encoded bytes to the network's input."""
