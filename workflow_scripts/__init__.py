"""The workflow's scripts, one a rule, and the benchmark they run as a library."""

import gc
import sys

# `python -m workflow_scripts.evaluate`: of four seconds of imports, torch's above all, one would be
# the collector's. `command_line` switches it on again for a rule's script; `hear2021.run.site`, no
# rule's, does without.
if sys.argv[0] == "-m":
    gc.disable()
