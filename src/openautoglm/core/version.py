"""The version, said once; the package, the command line and the card of a bundle read it here."""

VERSION = "0.1.0"
