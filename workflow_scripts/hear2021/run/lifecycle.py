"""A run from its first check to its summary: what the handlers of rules/lifecycle.smk call."""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord

from workflow_scripts.hear2021.evaluation.kept_scores import forget_kept_scores
from workflow_scripts.hear2021.evaluation.results import test_score
from workflow_scripts.hear2021.run import performance, progress, unfinished
from workflow_scripts.hear2021.run.config_tables import ConfigurationError
from workflow_scripts.hear2021.run.configuration import Run
from workflow_scripts.hear2021.run.scratch import take
from workflow_scripts.hear2021.run.site import (
    Request,
    Site,
    check_site,
    check_status_queries,
    largest_requests,
)
from workflow_scripts.hear2021.run.slurm import SlurmError, cancel_leftovers, running_jobs

RESULTS = Path("results")
UNFINISHED = RESULTS / "logs" / "unfinished.json"


class Lifecycle:
    """Checks scratch and cluster, tells people how the run goes, and sums it up.

    Args:
        workflow: Snakemake's, whose jobs these are.
        run: what is asked for.
        site: the cluster's settings.
        scratch: the scratch folder.
    """

    def __init__(self, workflow: Any, run: Run, site: Site, scratch: Path) -> None:
        self._workflow = workflow
        self._run = run
        self._site = site
        self._scratch = scratch
        self._messages = progress.RunMessages(logger.info, _read_score)

    def begin(self) -> None:
        """Check the scratch folder and the cluster, and start telling how the run goes.

        Raises:
            WorkflowError: saying what is wrong with either, or with the published scores that
                reports are made of. Nothing was submitted then.
        """
        dag = self._workflow.dag
        jobs = [job for job in dag.needrun_jobs() if not job.is_norun]
        try:
            take(self._scratch, Path.cwd())
            if any(job.rule.name in unfinished.REPORT_RULES for job in jobs):
                _check_published()
        except ConfigurationError as error:
            raise WorkflowError(str(error)) from error
        slurm = self._slurm_settings()
        running = None
        if slurm is not None:
            self._prepare_slurm(slurm, jobs)
            running = partial(running_jobs, slurm.jobname_prefix, Path.cwd())
        # Before a job fails that they wait for: this run may be killed and not come to its end.
        self._unrecord(job for job in jobs if self._is_to_be_scored_anew(job))
        self._messages.begin({job.jobid: _planned_job(dag, job) for job in jobs}, running)
        if not self._workflow.output_settings.verbose:
            for handler in logger.handlers:
                if handler.name == "DefaultStreamHandler":
                    handler.addFilter(progress.WithoutJobEvents())
        logger.addHandler(self._messages)

    def report_unfinished(self) -> None:
        """Make the tables and figures of a run that did not finish."""
        left = list(self._workflow.dag.needrun_jobs())
        self._unrecord(
            job
            for job in left
            if job.rule.name in unfinished.REPORT_RULES
            or not all(Path(file).exists() for file in job.output)
        )
        reasons = self._messages.reasons()
        pairs = [
            (job.wildcards.variant, job.wildcards.task)
            for job in left
            if job.rule.name in progress.EVALUATION_RULES
        ]
        reports = [
            unfinished.ReportJob(
                job.rule.name, job.shellcmd, tuple(map(Path, job.output)), Path(job.log[0])
            )
            for job in left
            if job.rule.name in unfinished.REPORT_RULES
        ]
        if reports:
            logger.info("The tables and figures of what is there are made now; a minute")
        for line in unfinished.report_what_is_there(
            reports, {pair: reasons.get(pair, "") for pair in pairs}, UNFINISHED
        ):
            logger.info(line)

    def sum_up(self) -> None:
        """Write the table of the jobs' performance and say what became of the run."""
        logger.removeHandler(self._messages)
        forget_kept_scores(self._scratch, RESULTS)
        models = {name for row in self._run.variants for name in (row.name, row.checkpoint)}
        tasks = {row.task for row in self._run.tasks}
        rows = performance.gather_performance(RESULTS, models, tasks)
        table = RESULTS / self._run.benchmark / "performance.csv"
        performance.write_performance(rows, table)
        logger.info(self._messages.summary(rows, table))

    def _is_to_be_scored_anew(self, job: Any) -> bool:
        """Return whether a job evaluates embeddings that are made in this run."""
        dag = self._workflow.dag
        return job.rule.name in progress.EVALUATION_RULES and any(
            map(dag.needrun, dag.dependencies[job])
        )

    def _unrecord(self, jobs: Iterable[Any]) -> None:
        """Have the output of these jobs be made again, by this run or the next.

        Snakemake records a failed job as it does a finished one. With its output gone and no change
        since, the next run would take the scores of before for those of now. And a report that is
        older than its scores it takes for finished if they are those that it recorded with it.
        """
        if not self._workflow.execution_settings.keep_metadata:
            return
        persistence = self._workflow.persistence
        for job in jobs:
            is_report = job.rule.name in unfinished.REPORT_RULES
            for file in job.output:
                record = persistence.metadata(file)
                if is_report:
                    persistence.cleanup_metadata(file)  # else half done, if it was being made
                    record = MetadataRecord()
                if record is None:
                    continue
                record.record_format_version = RECORD_FORMAT_VERSION
                record.params, record.input_checksums = ["unfinished"], {}
                persistence._write_record(persistence._get_key(file), record)

    def _slurm_settings(self) -> Any:
        """Return the settings of the SLURM executor, or None if the run stays on this machine."""
        settings = self._workflow.executor_settings
        return settings if hasattr(settings, "jobname_prefix") else None

    def _prepare_slurm(self, settings: Any, jobs: list[Any]) -> None:
        """Stop before anything is submitted if the cluster would refuse it or lose sight of it."""
        try:
            requests = [_request_of(job) for job in jobs if not job.is_local]
            for line in check_site(self._site, largest_requests(requests)):
                logger.info(line)
            check_status_queries(
                settings.status_command, settings.init_seconds_before_status_checks
            )
            leftovers = cancel_leftovers(settings.jobname_prefix, Path.cwd())
        except SlurmError as error:
            raise WorkflowError(str(error)) from error
        if leftovers:
            logger.info(f"Cancelled the jobs {', '.join(leftovers)} of an earlier run that died")


def _check_published() -> None:
    """Raise ConfigurationError of a slip in the published tables, of which reports would fail."""
    # Here, for it imports pandas, and the process of every job reads this module.
    from workflow_scripts.hear2021.report.published import read_published  # noqa: PLC0415

    read_published()


def _read_score(variant: str, task: str) -> float:
    return test_score(json.loads((RESULTS / "scores" / variant / f"{task}.json").read_text()))


def _planned_job(dag: Any, job: Any) -> progress.Job:
    """Return what messages need of a job; one whose time is not known weighs nothing."""
    needs = {other.jobid for other in dag.bfs(dag.dependencies, job) if other is not job}
    return progress.Job(
        job.rule.name,
        dict(job.wildcards_dict),
        _planned_number(job, "runtime") or 0,
        str(job.log[0]) if job.log else None,
        needs,
    )


def _request_of(job: Any) -> Request:
    """Return what a job asks of SLURM."""
    return Request(
        job.rule.name,
        bool(job.resources.get("gpu_jobs")),
        job.threads,
        _planned_number(job, "mem_mb"),
        _planned_number(job, "runtime"),
    )


def _planned_number(job: Any, resource: str) -> int | None:
    """Return a resource of a job, or None where it has none or Snakemake does not know it yet.

    The rules say numbers, but --set-resources may unset one (runtime=None), or compute it of input
    that is not there yet (mem_mb='2 * input.size_mb'); Snakemake then has a string in its place.
    """
    value = job.resources.get(resource)
    return value if isinstance(value, int) else None
