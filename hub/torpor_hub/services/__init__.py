"""Load, let ``domain`` decide, record: synchronous functions over a unit of work."""
