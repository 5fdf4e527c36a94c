"""The platform side of Torpor: services, controllers, hub integration and the programs that compose them."""

__version__ = "0.1.0"
