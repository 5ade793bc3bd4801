"""Training one network on one split."""
