"""The workflow's scripts, one a rule, and the benchmark they run as a library."""
