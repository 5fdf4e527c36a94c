"""Torpor."""
