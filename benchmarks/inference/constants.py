"""What every side of the comparison agrees on, without importing anything."""

# What the images are standardised with.
MEAN, VARIANCE = 50.0, 2500.0
# Images that the probabilities are compared on, and the largest batch.
IMAGES = 32
# Of the matrices that the machine's rate is measured with.
SIDE = 2048
