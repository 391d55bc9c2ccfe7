"""Pipelines: their interface (`base`), how they are found (`registry`), and the two of this package."""
