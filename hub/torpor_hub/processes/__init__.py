"""Local processes: their identity, trees, end, freeze and the environments that they run in."""
