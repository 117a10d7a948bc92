"""Three users who do everything at random on one dataset, and are killed; what must hold is looked at after each kill."""
