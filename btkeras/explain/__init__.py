"""Maps of what a prediction rests on, and how well they point at the tumours."""
