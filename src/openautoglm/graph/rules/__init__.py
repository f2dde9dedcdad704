"""Rewrites of the graph, a file for each rule or small family; `registry` lists them in their order."""
