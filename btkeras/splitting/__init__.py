"""Training, validation and test subsets, folds, and the groups of images that belong in one subset."""
