"""Captures on one node: claims them from the api, freezes, reads, verifies, thaws. No open port, no database."""
