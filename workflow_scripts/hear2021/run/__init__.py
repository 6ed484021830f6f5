"""A run: what it asks for, where, what its jobs take, and what it tells people."""
