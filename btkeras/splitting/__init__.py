"""Training, validation and test subsets, and the groups that a split must not part."""
