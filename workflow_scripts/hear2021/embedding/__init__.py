"""Embeddings of a task on disk, and which passes they take."""
