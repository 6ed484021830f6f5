"""The repository's own style, held by the tools that define it."""

import subprocess
import sys

import pytest

CHECKS = {
    "ruff-check": ["ruff", "check", "."],
    "ruff-format": ["ruff", "format", "--check", "."],
    "snakefmt": ["snakefmt", "--check", "Snakefile", "rules"],
    "mypy": ["mypy"],
    "snakemake-lint": ["snakemake", "--lint"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_tree_is_clean(name, repository):
    command = CHECKS[name]
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
