"""Environments of other packages. Each adapter is imported, with what it needs, when it is named."""
