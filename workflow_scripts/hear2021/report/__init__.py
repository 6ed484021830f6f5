"""Scores to tables, figures and claims, beside what others published."""
