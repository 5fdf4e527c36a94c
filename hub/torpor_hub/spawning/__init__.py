"""JupyterHub's side of the platform: who signs in, how a workspace's server starts, and the hub's whole configuration."""
