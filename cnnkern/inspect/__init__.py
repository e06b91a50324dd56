"""Tools that look into a model."""
