"""Training: recipes, what is minimised, the loop, and its checkpoints."""
