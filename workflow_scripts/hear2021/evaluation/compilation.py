"""Functions compiled by numba, for loops that neither torch nor numpy has in one piece."""

from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return a function compiled at its first call, kept on disk for the processes after it.

    Args:
        function: of numbers and numpy arrays.
        options: of numba.njit.
    """
    import numba  # noqa: PLC0415 -- a third of a second that most processes do without

    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder to keep it in
        return numba.njit(**options)(function)  # type: ignore[no-any-return]
