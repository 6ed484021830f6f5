"""The mini benchmark: small tasks of synthetic sound that exercise all of the pipeline."""
