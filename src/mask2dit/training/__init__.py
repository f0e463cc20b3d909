"""Training: the parts of the built-in model, and the paper's two stages on any data."""
