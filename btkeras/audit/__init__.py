"""What is wrong with a dataset: duplicates, leakage, broken files, and shortcuts that a network could take."""
