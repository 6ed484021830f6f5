"""A rule's script on the command line: options, log, and what a failure says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from workflow_scripts.command_line import command_line

class Late:
    def __del__(self):
        raise AttributeError("as the interpreter ends")

def train(task: Path, folds: list[int], seed: int = 42, local: str = "") -> None:
    print("folds", folds, "seed", seed, "task", repr(task), "local", local)
    if seed == 13:
        raise ValueError("esc50: seed 13 does not converge")
    if seed == 14:
        raise RuntimeError("sizes differ:\\n  wanted 3\\n\\n(see the manual)")
    if seed == 28:
        raise OSError(28, "No space left on device")
    if seed == 15:
        raise SystemExit(0)
    if seed == 16:
        sys.modules["late"] = Late()
        raise ValueError("the reason")

if __name__ == "__main__":
    command_line(train)
"""


@pytest.fixture
def run(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)

    def run_script(*options: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        log = tmp_path / "logs" / "train.log"
        command = [sys.executable, str(script), *options, "--log", str(log)]
        path = {"PYTHONPATH": str(Path(__file__).parent.parent)}
        return subprocess.run(command, check=False, capture_output=True, text=True, env=path), log

    return run_script


def test_arguments_are_options_and_output_goes_to_the_log(run):
    result, log = run("--task", "esc50", "--folds", "0", "1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert "folds [0, 1] seed 42 task PosixPath('esc50') local " in log.read_text()


def test_a_failure_is_one_line_on_the_console_and_a_traceback_in_the_log(run):
    result, log = run("--task", "esc50", "--folds", "0", "--seed", "13")
    assert result.returncode == 1
    assert result.stderr == f"train: esc50: seed 13 does not converge\n    log: {log}\n"
    assert "Traceback" in log.read_text()
    assert log.read_text().endswith("\nValueError: esc50: seed 13 does not converge\n")


@pytest.mark.parametrize(
    ("seed", "reason"),
    [("14", "RuntimeError: sizes differ: wanted 3 (see the manual)"), ("15", "sys.exit(0)")],
)
def test_the_log_ends_with_the_whole_reason_in_one_line(run, seed, reason):
    result, log = run("--task", "esc50", "--folds", "0", "--seed", seed)
    assert result.returncode == 1
    assert log.read_text().splitlines()[-1].endswith(reason)


def test_a_full_disk_is_named_with_the_room_that_is_left(run, tmp_path):
    result, log = run("--task", str(tmp_path / "esc50"), "--folds", "0", "--seed", "28")
    said = (
        rf"No space left on device\. {tmp_path}(/logs)? has \d+ MB left: make room there .* is kept"
    )
    assert re.search(said, result.stderr)
    assert re.search(said, log.read_text().splitlines()[-1])


def test_a_disk_without_room_for_the_log_is_named_too(run, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "train.log").symlink_to("/dev/full")
    result, _ = run("--task", str(tmp_path / "esc50"), "--folds", "0", "--seed", "28")
    assert result.returncode == 1
    assert "No space left on device. " in result.stderr


CLEANED_UP = """
import os, signal, tempfile
from pathlib import Path
from workflow_scripts.command_line import command_line

def wait(copy: Path) -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except (Exception, SystemExit) as error:  # as of a module that is loaded
        raise RuntimeError("the module failed") from error
    finally:
        copy.write_text("cleaned up")

if __name__ == "__main__":
    command_line(wait)
"""


def test_the_log_ends_with_the_reason_though_something_fails_as_the_interpreter_ends(run):
    result, log = run("--task", "esc50", "--folds", "0", "--seed", "16")
    assert "as the interpreter ends" in result.stderr
    assert log.read_text().endswith("\nValueError: the reason\n")


def test_a_job_that_slurm_ends_cleans_up(tmp_path):
    (tmp_path / "wait.py").write_text(CLEANED_UP)
    command = [sys.executable, "wait.py", "--copy", "copy", "--log", "log"]
    path = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    assert subprocess.run(command, cwd=tmp_path, env=path, check=False).returncode == 143
    assert (tmp_path / "copy").read_text() == "cleaned up"
    assert (tmp_path / "log").read_text().endswith("ended by SIGTERM: cancelled, or out of time\n")


def test_a_missing_argument_is_named(run):
    result, _ = run("--task", "esc50")
    assert result.returncode == 2
    assert "--folds" in result.stderr
