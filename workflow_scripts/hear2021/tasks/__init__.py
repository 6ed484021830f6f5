"""Tasks: where their data comes from, what it must be, and how it is prepared."""
