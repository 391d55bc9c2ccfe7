"""Pipelines: what one is (`interface`), where they are found (`registry`), and those that ship with us."""
