"""What a run does before its first job and after its last."""

from workflow_scripts.hear2021.run.lifecycle import Lifecycle

LIFECYCLE = Lifecycle(workflow, RUN, SITE, SCRATCH)


onstart:
    LIFECYCLE.begin()


onsuccess:
    LIFECYCLE.sum_up()


onerror:
    LIFECYCLE.report_unfinished()
    LIFECYCLE.sum_up()
