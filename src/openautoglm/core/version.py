"""The version, said once; the package, the command line and the card of a bundle read it here."""

__version__ = "0.1.0"
