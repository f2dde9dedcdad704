"""The service: engines in processes of their own, behind interfaces that clients speak."""
