"""A real SLURM on the loopback for tests: one node, two GPUs that are none, no accounting.

python -m tests.slurm_lab COMMAND [ARGUMENT ...]    runs COMMAND while the cluster is up

SLURM comes from the distribution's packages (slurm-wlm, munge) and is installed where it is missing
and this process may do so. Its configuration has to be /etc/slurm/slurm.conf, because the executor
takes SLURM_CONF out of the environment of its jobs. Everything else lies in a temporary folder.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CONFIGURATION = Path("/etc/slurm")
FILES = ["slurm.conf", "gres.conf"]
MARK = "# Made by tests/slurm_lab.py"
PROGRAMS = ["munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol"]
GPUS = ["/dev/null", "/dev/zero"]
CPUS = 6
MEMORY_MB = 100_000

# The node claims more CPUs and memory than there may be (config_overrides), so that what the tests
# ask for does not depend on the machine. OverMemoryKill stands in for a cluster's cgroups.
SLURM_CONF = """{mark}, pid {pid}
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
KillWait=5
MessageTimeout=30
SlurmctldTimeout=30
SlurmdTimeout=300
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/finished_jobs
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=7-0 State=UP
PartitionName=gpu Nodes={host} MaxTime=7-0 State=UP
"""


class LabError(RuntimeError):
    """Why SLURM cannot run here."""


@dataclass
class Lab:
    """A running cluster."""

    folder: Path
    host: str
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, program: str, *arguments: str) -> None:
        """Start a daemon in a session of its own; it ends when this process dies."""
        with (self.folder / f"{program}.out").open("ab") as output:
            self._daemons[program] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", _path(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def stop(self, program: str) -> None:
        """End a daemon that this lab started."""
        daemon = self._daemons.pop(program, None)
        if daemon is None:
            return
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def restart_controller(self, seconds_down: float = 0) -> None:
        """Stop slurmctld and start it again; jobs go on meanwhile."""
        self.stop("slurmctld")
        time.sleep(seconds_down)
        self.start("slurmctld", "-D")
        self.wait_until_up()

    def wait_until_up(self) -> None:
        """Wait for the node to take jobs."""
        wait_for(lambda: self.node_state() in {"idle", "mix", "alloc"}, 60, self.why_not_up)

    def node_state(self) -> str:
        """Return what sinfo says of the node."""
        return (
            self.command("sinfo", "-h", "-p", "cpu", "-o", "%T", check=False)
            .replace("allocated", "alloc")
            .replace("mixed", "mix")
        )

    def why_not_up(self) -> str:
        """Return the ends of the daemons' logs."""
        logs = [*sorted(self.folder.glob("*.log")), *sorted(self.folder.glob("*.out"))]
        ends = [f"{log.name}: {log.read_text(errors='replace')[-600:]}" for log in logs]
        return "\n".join([f"the node is {self.node_state()!r}", *ends])

    def command(self, *arguments: str, check: bool = True) -> str:
        """Run one of SLURM's commands and return what it prints."""
        result = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        if check and result.returncode:
            raise LabError(f"{' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout.strip()

    def jobs(self, states: str = "PENDING,RUNNING") -> dict[int, dict[str, str]]:
        """Return the queue: name, state and comment (the rule and its wildcards) of each job."""
        lines = self.command("squeue", "-h", "-t", states, "-o", "%i|%j|%T|%k").splitlines()
        rows = [line.split("|", 3) for line in lines]
        return {
            int(row[0]): dict(zip(("name", "state", "comment"), row[1:], strict=True))
            for row in rows
        }

    def finished_jobs(self) -> dict[int, dict[str, str]]:
        """Return what SLURM recorded of each job that ended: JobState, StartTime, EndTime ..."""
        record = self.folder / "finished_jobs"
        if not record.exists():
            return {}
        rows = (
            dict(cell.split("=", 1) for cell in line.split() if "=" in cell)
            for line in record.read_text().splitlines()
        )
        return {int(row["JobId"]): row for row in rows}


def wait_for(condition, seconds: float, explain=lambda: "") -> None:
    """Wait until `condition()` is true.

    Raises:
        TimeoutError: after `seconds`, with what `explain()` says.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {seconds:.0f} s. {explain()}")
        time.sleep(0.2)


@contextmanager
def slurm_lab() -> Iterator[Lab]:
    """Run a one-node SLURM while the block runs, and leave nothing of it behind.

    Raises:
        LabError: if SLURM cannot be installed or run here, saying why.
    """
    _install()
    _refuse_another_slurm()
    folder = Path(tempfile.mkdtemp(prefix="slurm-lab-"))
    lab = Lab(folder, socket.gethostname().split(".")[0])
    created = not CONFIGURATION.exists()
    try:
        _configure(lab)
        lab.start(
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder}/munge.socket",
            f"--key-file={folder}/munge.key",
            f"--pid-file={folder}/munged.pid",
            f"--seed-file={folder}/munge.seed",
            f"--log-file={folder}/munged.log",
        )
        wait_for((folder / "munge.socket").exists, 20, lab.why_not_up)
        lab.start("slurmctld", "-D", "-c")
        lab.start("slurmd", "-D", "-c")
        lab.wait_until_up()
        yield lab
    finally:
        _end_jobs(lab)
        for program in ["slurmd", "slurmctld", "munged"]:
            lab.stop(program)
        for name in FILES:
            (CONFIGURATION / name).unlink(missing_ok=True)
        if created:
            CONFIGURATION.rmdir()
        shutil.rmtree(folder, ignore_errors=True)


def _path(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin:/sbin")
    return found or ""


def _install() -> None:
    missing = [program for program in PROGRAMS if not _path(program)]
    if os.geteuid() != 0:
        raise LabError("the loopback SLURM writes /etc/slurm and needs root")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise LabError(f"{', '.join(missing)} are missing and there is no apt-get to install them")
    for command in (
        ["apt-get", "update"],
        ["apt-get", "install", "--yes", "--no-install-recommends", "slurm-wlm", "munge"],
    ):
        result = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            # No daemon of the packages' own is to start.
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
        )
    if result.returncode:
        raise LabError(f"{' '.join(command)} failed: {result.stderr.strip()[-500:]}")


def _refuse_another_slurm() -> None:
    existing = CONFIGURATION / "slurm.conf"
    if not existing.exists():
        return
    first, _, _ = existing.read_text().partition("\n")
    if not first.startswith(MARK):
        raise LabError(f"this machine has a SLURM of its own ({existing})")
    owner = int(first.rsplit(" ", 1)[1])
    if Path(f"/proc/{owner}").exists():
        raise LabError(f"another loopback SLURM is running, of process {owner}")


def _configure(lab: Lab) -> None:
    for name in ("state", "spool"):
        (lab.folder / name).mkdir()
    subprocess.run([_path("mungekey"), "-c", "-k", f"{lab.folder}/munge.key"], check=True)
    ports = [_free_port(), _free_port()]
    CONFIGURATION.mkdir(exist_ok=True)
    (CONFIGURATION / "slurm.conf").write_text(
        SLURM_CONF.format(
            mark=MARK,
            pid=os.getpid(),
            host=lab.host,
            folder=lab.folder,
            cpus=CPUS,
            memory=MEMORY_MB,
            gpus=len(GPUS),
            controller_port=ports[0],
            daemon_port=ports[1],
        )
    )
    (CONFIGURATION / "gres.conf").write_text(
        "".join(f"Name=gpu File={device}\n" for device in GPUS)
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end_jobs(lab: Lab) -> None:
    """Cancel what is still in the queue and wait until the steps' processes are gone."""
    try:
        for job in lab.jobs():
            lab.command("scancel", "--full", str(job), check=False)
        wait_for(lambda: not lab.jobs("PENDING,RUNNING,COMPLETING"), 30)
    except (LabError, TimeoutError, subprocess.TimeoutExpired) as error:
        print(f"slurm_lab: jobs may be left: {error}", file=sys.stderr)


def main() -> None:
    """Run a command while the cluster is up."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with slurm_lab():
            sys.exit(subprocess.run(sys.argv[1:], check=False).returncode)
    except LabError as error:
        sys.exit(f"slurm_lab: {error}")


if __name__ == "__main__":
    main()
