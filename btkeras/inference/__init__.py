"""Predictions of a trained or exported model."""
