"""Measuring scripts: inference and training beside other engines, input pipeline, memory, cold start, server load."""
