"""Right before fast: agreement with the eager model, accuracy on labelled data, and what must be reached."""
