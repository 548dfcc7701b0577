"""The only version number of beatline."""

__version__ = "0.1.0"
