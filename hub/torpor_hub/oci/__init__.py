"""Layers and images: a folder to a layer and back, manifests, and an image layout on disk."""
