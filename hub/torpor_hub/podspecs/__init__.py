"""What the platform's objects on a cluster look like: domain in, Kubernetes JSON out. Pure; standard library only."""
