"""What the tests share: where the inputs that are not in the repository lie."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("HEAR_SHARED", REPOSITORY.parent / "shared"))

needs_shared = pytest.mark.skipif(
    not (SHARED / "golden").is_dir(),
    reason=f"the golden embeddings and real input are not at {SHARED.name}/ (set HEAR_SHARED)",
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the golden embeddings and the real input."""
    return SHARED


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return REPOSITORY
