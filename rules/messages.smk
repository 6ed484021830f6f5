"""Before, during and after a run: check the cluster, tell people how it goes, sum up."""

import csv
import json
import os
import subprocess

from snakemake.logging import logger

from workflow_scripts.hear2021 import progress, site
from workflow_scripts.hear2021.packs import forget_kept_scores
from workflow_scripts.hear2021.results import test_score

RESULTS = Path("results")
PERFORMANCE = RESULTS / RUN.benchmark / "performance.csv"
REPORT_RULES = ["aggregate", "plot", "claims"]


def read_score(variant, task):
    """The score of a finished pair."""
    return test_score(json.loads(Path("results/scores", variant, f"{task}.json").read_text()))


MESSAGES = progress.RunMessages(logger.info, read_score)


def slurm_settings():
    """The settings of the SLURM executor, or None if the run stays on this machine."""
    settings = workflow.executor_settings
    return settings if hasattr(settings, "jobname_prefix") else None


def planned_number(job, resource):
    """A resource of a job, where it is known before the job's input is there."""
    value = job.resources.get(resource)
    return value if isinstance(value, int) else 1


def largest_requests(jobs):
    """What the largest job of each rule asks of SLURM."""
    requests = {}
    for job in jobs:
        name = job.rule.name
        known = requests.get(name, site.Request(name, False, 1, 1, 1))
        requests[name] = site.Request(
            name,
            bool(job.resources.get("gpu_jobs")),
            max(known.cpus, job.threads),
            max(known.memory_mb, planned_number(job, "mem_mb")),
            max(known.minutes, planned_number(job, "runtime")),
        )
    return requests.values()


def prepare_slurm(settings, jobs):
    """Stop before anything is submitted if the cluster would refuse it or lose sight of it."""
    try:
        for line in site.check_site(
            SITE, largest_requests(job for job in jobs if not job.is_local)
        ):
            logger.info(line)
        site.check_status_queries(
            settings.status_command, settings.init_seconds_before_status_checks
        )
        leftovers = site.cancel_leftovers(settings.jobname_prefix, Path.cwd())
    except site.SiteError as error:
        raise WorkflowError(str(error))
    if leftovers:
        logger.info(f"Cancelled the jobs {', '.join(leftovers)} of an earlier run that died")


def ancestors(job):
    """The jobs that a job waits for, directly or not."""
    return [other for other in workflow.dag.bfs(workflow.dag.dependencies, job) if other is not job]


def begin():
    """Check the cluster and start telling how the run goes."""
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_norun]
    settings = slurm_settings()
    running = None
    if settings is not None:
        prepare_slurm(settings, jobs)
        running = lambda: site.running_jobs(settings.jobname_prefix, Path.cwd())
    MESSAGES.begin(
        {
            job.jobid: progress.Job(
                job.rule.name,
                dict(job.wildcards_dict),
                planned_number(job, "runtime"),
                str(job.log[0]) if job.log else None,
                {other.jobid for other in ancestors(job)},
                job.is_local,
            )
            for job in jobs
        },
        running,
    )
    if not workflow.output_settings.verbose:
        for handler in logger.handlers:
            if handler.name == "DefaultStreamHandler":
                handler.addFilter(progress.WithoutJobEvents())
    logger.addHandler(MESSAGES)


def report_what_is_there():
    """Make the tables and figures of an unfinished run; what is missing stands in them.

    A score that the run would have made again is missing. The files are dated before all scores, so
    that the next run makes them again.
    """
    left = list(workflow.dag.needrun_jobs())
    pairs = (job for job in left if job.rule.name in progress.EVALUATION_RULES)
    outdated = " ".join(job.output.scores for job in pairs)
    unfinished = [job for job in left if job.rule.name in REPORT_RULES]
    for job in sorted(unfinished, key=lambda job: REPORT_RULES.index(job.rule.name)):
        for path in [*job.output, *job.log]:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        command = f"{job.shellcmd} {outdated}" if job.rule.name == "aggregate" else job.shellcmd
        if subprocess.run(command, shell=True).returncode:
            logger.info(f"No {job.rule.name} of what is there, see {job.log}")
        elif job.rule.name == "aggregate":
            say_why(job.output.missing)
    for path in (path for job in unfinished for path in job.output):
        if Path(path).exists():
            os.utime(path, (1, 1))  # Snakemake takes a date of 0 for none


def say_why(table):
    """Put into the table of missing pairs why they are missing."""
    reasons = MESSAGES.reasons()
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["reason"] = reasons.get((row["model"], row["task"]), row["reason"])
    if rows:
        with open(table, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def sum_up():
    """Write the table of the jobs' performance and say what became of the run."""
    logger.removeHandler(MESSAGES)
    forget_kept_scores(SCRATCH, RESULTS)
    models = {name for variant in RUN.variants for name in (variant.name, variant.checkpoint)}
    rows = progress.gather_performance(RESULTS, models, {row.task for row in RUN.tasks})
    progress.write_performance(rows, PERFORMANCE)
    logger.info(MESSAGES.summary(rows, PERFORMANCE))


onstart:
    begin()


onsuccess:
    sum_up()


onerror:
    report_what_is_there()
    sum_up()
