"""Neural networks: layers, workers, schedule, checkpoints; shared by what trains networks."""
