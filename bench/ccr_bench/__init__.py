"""The project's benchmark: what the relay costs, as ratios to nginx in the same run. Standard library only."""
