"""A small client of the Kubernetes API over raw JSON, and caches kept by list and watch."""
