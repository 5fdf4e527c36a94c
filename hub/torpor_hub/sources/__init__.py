"""Connectors: what speaks to external stores. They run in the importer's killable children and nowhere else."""
