"""How fast a model predicts on this machine, in every format that it is there in."""
