"""The version of this package, which it writes into what it makes."""

__version__ = "0.1.0"
