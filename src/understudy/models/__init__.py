"""Models: tiny ones for tests and quick starts."""
