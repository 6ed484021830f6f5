"""The version of each stage.

Raise a number when that stage gives another output for the same input: its finished jobs, and what
follows from them, then run again. Nothing else about the code makes a finished job run again, but
for the command of its rule, be it by a blank: without the profile's `rerun-triggers` Snakemake
compares it.
"""

SYNTHESISE = 2
FETCH = 1
PREPARE = 1
EMBED = 1
EVALUATE = 2
EXPORT = 1
REPORT = 1
