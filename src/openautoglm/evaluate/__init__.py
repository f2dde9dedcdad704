"""Evaluation: metrics by their full names; ``run.score`` and ``run.run`` give ``Scores`` with intervals."""
