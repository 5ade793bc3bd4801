"""From probabilities to a decision: calibration, out-of-distribution score, rejection, abstention."""
