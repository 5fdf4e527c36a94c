"""Running jobs: one protocol, one implementation per kind of place."""
