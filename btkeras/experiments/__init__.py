"""Trainings and cross-validations from start to summary."""
