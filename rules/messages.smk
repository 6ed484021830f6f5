"""Before, during and after a run: check scratch and cluster, tell people how it goes, sum up."""

import json

from snakemake.logging import logger

from workflow_scripts.hear2021.evaluation.results import test_score
from workflow_scripts.hear2021.run import progress, scratch, site, unfinished
from workflow_scripts.hear2021.run.packs import forget_kept_scores

RESULTS = Path("results")
PERFORMANCE = RESULTS / RUN.benchmark / "performance.csv"
UNFINISHED = RESULTS / "logs" / "unfinished.json"


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


def request_of(job):
    """What a job asks of SLURM."""
    return site.Request(
        job.rule.name,
        bool(job.resources.get("gpu_jobs")),
        job.threads,
        planned_number(job, "mem_mb"),
        planned_number(job, "runtime"),
    )


def prepare_slurm(settings, jobs):
    """Stop before anything is submitted if the cluster would refuse it or lose sight of it."""
    try:
        requests = [request_of(job) for job in jobs if not job.is_local]
        for line in site.check_site(SITE, site.largest_requests(requests)):
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
    """Check the scratch folder and the cluster, and start telling how the run goes."""
    try:
        scratch.take(SCRATCH, Path.cwd())
    except ConfigurationError as error:
        raise WorkflowError(str(error))
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


def report_unfinished():
    """Make the tables and figures of a run that did not finish."""
    left = list(workflow.dag.needrun_jobs())
    reasons = MESSAGES.reasons()
    pairs = [
        (job.wildcards.variant, job.wildcards.task)
        for job in left
        if job.rule.name in progress.EVALUATION_RULES
    ]
    jobs = [
        unfinished.ReportJob(
            job.rule.name, job.shellcmd, tuple(map(Path, job.output)), Path(job.log[0])
        )
        for job in left
        if job.rule.name in unfinished.REPORT_RULES
    ]
    for line in unfinished.report_what_is_there(
        jobs, {pair: reasons.get(pair, "") for pair in pairs}, UNFINISHED
    ):
        logger.info(line)


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
    report_unfinished()
    sum_up()
