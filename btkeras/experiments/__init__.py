"""Several trainings together: cross-validation, and what its folds say."""
