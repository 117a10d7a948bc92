"""A synthetic world of parts on trays: the demo dataset, and the training of the demo models."""
