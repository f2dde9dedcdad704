"""The edge runtime: a bundle as one static C++ program with its weights and tables, to run without Python."""
