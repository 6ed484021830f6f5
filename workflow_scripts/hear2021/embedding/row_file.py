"""A matrix that grows on disk while a pass computes its rows."""

import io
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

SYNC_BYTES = 64 << 20  # of rows that go to the disk together, while the next ones are computed


# Rows are appended to a .npy file whose header is written again at the end: numpy leaves room in
# the header for the number of rows to grow.
def write_header(rows: BinaryIO, n_rows: int, width: int) -> None:
    """Say at the start of an open file how many rows it has."""
    rows.seek(0)
    npy.write_array_header_1_0(
        rows, {"descr": "<f4", "fortran_order": False, "shape": (n_rows, width)}
    )


def has_rows(path: Path, n_rows: int, width: int) -> bool:
    """Return whether a file is long enough for a header and so many rows."""
    header = io.BytesIO()
    write_header(header, n_rows, width)
    return path.stat().st_size >= header.tell() + n_rows * width * 4


def open_rows(path: Path, n_rows: int, width: int) -> BinaryIO:
    """Open a file for more rows behind its first `n_rows`, dropping what is behind these."""
    rows = path.open("r+b" if n_rows else "w+b")
    write_header(rows, n_rows, width)
    rows.truncate(rows.tell() + n_rows * width * 4)
    rows.seek(0, os.SEEK_END)
    return rows


class RowWriter:
    """Writes rows to a file, and onto the disk, beside the thread that gives them.

    Written at the end of a pass, they would keep a GPU waiting for as long as the disk takes. The
    disk has a thread of its own, so that rows go to the file while it takes those before them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writing, self._syncing = (ThreadPoolExecutor(max_workers=1) for _ in range(2))
        self._written: Future[None] | None = None
        self._synced: Future[None] | None = None
        self._unsynced = 0

    def __enter__(self) -> "RowWriter":
        """Return the writer."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait for what is under way."""
        self._writing.shutdown()  # before what it hands on to
        self._syncing.shutdown()

    def write(self, rows: np.ndarray) -> None:
        """Take rows once those before them are written. Raises OSError of earlier ones."""
        if self._written is not None:
            self._written.result()
        self._written = self._writing.submit(self._write, rows)

    def finish(self) -> None:
        """Wait until all rows are written. Raises OSError."""
        if self._written is not None:
            self._written.result()  # which may hand on to the disk
        if self._synced is not None:
            self._synced.result()

    def _write(self, rows: np.ndarray) -> None:
        self._file.write(rows.data)
        self._unsynced += rows.nbytes
        if self._unsynced >= SYNC_BYTES:
            self._file.flush()
            if self._synced is not None:
                self._synced.result()  # the disk gets no further behind than this
            self._synced = self._syncing.submit(os.fdatasync, self._file.fileno())
            self._unsynced = 0
