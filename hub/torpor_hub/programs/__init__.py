"""Composition roots: each program chooses its parts here and nowhere else."""
