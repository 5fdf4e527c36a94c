"""Remembering: the database, its changes and leases, and blobs. No rules here."""
