"""Files from the network that appear whole or not at all.

`fetch` writes to `<name>.part`, goes on from there after a break, checks length and hashes, and
only then renames. `<name>.verified.json` says what was checked, so that a large file is hashed once
and, where no hash was published, the one first seen is held to. `<name>.lock` lets one process
fetch while the others wait.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import urllib3
from filelock import FileLock, Timeout
from requests.adapters import HTTPAdapter
from tqdm import tqdm

from hear_mn.whole import write_json_whole

ATTEMPTS = 5  # without a byte gained
BACKOFF_SECONDS = 1.0
TIMEOUT_SECONDS = (30.0, 60.0)  # to connect, between bytes
BUSY = (429, 500, 502, 503, 504)
CHUNK = 1 << 16
PART = ".part"
VERIFIED = ".verified.json"


class DownloadError(RuntimeError):
    """A file that could not be had, with what to do."""


class _BrokenOffError(Exception):
    """A transfer that broke off and may go on."""


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is there; None is unknown.

    `first_seen` is the record of an earlier fetch, if `sha256` comes from there.
    """

    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    git_blob_sha1: str | None = None
    first_seen: Path | None = None

    @property
    def hashes(self) -> dict[str, str]:
        """The known hashes by name."""
        named = {"md5": self.md5, "sha256": self.sha256, "git_blob_sha1": self.git_blob_sha1}
        return {name: value.lower() for name, value in named.items() if value}

    def contradiction(self, found: dict[str, Any]) -> str:
        """Say in what `found` (size and hashes) differs from what is expected, or nothing."""
        if self.size is not None and found["size"] != self.size:
            return f"it has {found['size']} bytes, not {self.size}"
        for name, value in self.hashes.items():
            if found[name] != value:
                source = (
                    f" as first seen (recorded in {self.first_seen})" if self.first_seen else ""
                )
                return f"its {name} is {found[name]}, not {value}{source}"
        return ""


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    git_blob_sha1: str | None = None,
) -> Path:
    """Fetch `url` to `target`, unless the right file is there already.

    With the file in place and verified nothing is asked of the network. A broken transfer is taken
    up again where it stopped, here and by the next call; a busy server (429, 503) is asked again
    when it says. Any number of processes may call at the same time: one fetches.

    Args:
        url: http or https.
        target: the file to have; its folder is made.
        size: in bytes.
        md5: hexadecimal.
        sha256: hexadecimal.
        git_blob_sha1: hexadecimal, over b"blob <size>\\0" and the content, as git names a file.
            Where no hash is given, the sha256 first seen of this URL is recorded and held to.

    Returns:
        `target`.

    Raises:
        DownloadError: if the file cannot be had or is not the expected one, with what to do.
    """
    expected = Expected(size, md5, sha256, git_blob_sha1)
    if _is_verified(target, expected, url):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _one_process(target):
        if _is_verified(target, expected, url):
            return target
        of_this_url = _is_of(_verified(target), expected, url)
        if of_this_url:
            expected = _held_to_first_seen(target, expected)
        if target.exists() and of_this_url:
            found = _measure(target, expected)
            if wrong := expected.contradiction(found):
                raise DownloadError(
                    f"{target} is not the file expected: {wrong}. Delete it to fetch it again"
                )
        else:
            found = _fetch_missing(url, target, expected)
        _record(target, found, url)
    return target


def fetch_json(url: str, kept: Path, parse: Callable[[Any], Any]) -> Any:
    """Return what `parse` makes of the JSON at `url`, asked for once and kept.

    Args:
        url: http or https.
        kept: where the result is kept, as JSON.
        parse: raises KeyError, TypeError or ValueError for what is not the answer wanted.

    Raises:
        DownloadError: if the server does not answer, or answers with something else.
    """
    kept.parent.mkdir(parents=True, exist_ok=True)
    with _one_process(kept):
        if not kept.exists():
            try:
                with _session() as session, _answer(session, url, kept, {}) as response:
                    content = parse(json.loads(response.content))
            except (requests.RequestException, _BrokenOffError) as error:
                raise DownloadError(
                    f"{url} could not be asked ({error}). Run again later, or first where there is "
                    f"internet"
                ) from error
            except (KeyError, TypeError, ValueError) as error:
                raise DownloadError(
                    f"{url} did not answer with what is expected there ({error!r}); look at it in "
                    f"a browser and try again later"
                ) from error
            write_json_whole(kept, content)
    return json.loads(kept.read_text())


def file_hashes(path: Path, names: set[str]) -> dict[str, str]:
    """Return the named hashes (md5, sha256, git_blob_sha1) of a file in one reading."""
    hashers = {name: hashlib.new({"git_blob_sha1": "sha1"}.get(name, name)) for name in names}
    if "git_blob_sha1" in hashers:
        hashers["git_blob_sha1"].update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            for hasher in hashers.values():
                hasher.update(chunk)
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


@contextmanager
def _one_process(target: Path) -> Iterator[None]:
    lock = FileLock(_beside(target, ".lock"))  # the system frees it when its holder dies
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is fetching {target}; waiting", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _verified(target: Path) -> dict[str, Any]:
    try:
        return json.loads(_beside(target, VERIFIED).read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _is_of(verified: dict[str, Any], expected: Expected, url: str) -> bool:
    """Return whether a file in place can be what is expected: without a hash, one of this URL."""
    return bool(expected.hashes) or verified.get("url", url) == url


def _is_verified(target: Path, expected: Expected, url: str) -> bool:
    verified = _verified(target)
    if not verified or not target.exists() or not _is_of(verified, expected, url):
        return False
    status = target.stat()
    unchanged = [status.st_size, status.st_mtime_ns] == [verified["size"], verified["mtime_ns"]]
    checked = expected.hashes.keys() <= verified.keys()
    return unchanged and checked and not expected.contradiction(verified)


def _held_to_first_seen(target: Path, expected: Expected) -> Expected:
    if expected.hashes:
        return expected
    recorded = _verified(target).get("sha256")
    sidecar = _beside(target, VERIFIED) if recorded else None
    return Expected(size=expected.size, sha256=recorded, first_seen=sidecar)


def _measure(path: Path, expected: Expected) -> dict[str, Any]:
    return {
        "size": path.stat().st_size,
        **file_hashes(path, {"sha256", *expected.hashes}),
    }


def _record(target: Path, found: dict[str, Any], url: str) -> None:
    content = {"url": url, "mtime_ns": target.stat().st_mtime_ns, **found}
    write_json_whole(_beside(target, VERIFIED), content)


def _fetch_missing(url: str, target: Path, expected: Expected) -> dict[str, Any]:
    part = _beside(target, PART)
    resumed = part.exists()
    while True:
        _download(url, target, expected)
        found = _measure(part, expected)
        wrong = expected.contradiction(found)
        if not wrong:
            break
        _discard(part)
        if not resumed:
            raise DownloadError(
                f"{url} is not the file expected: {wrong}. Try again; if it stays so, something on "
                f"the way answers in its place, or the publisher has changed it: then correct "
                f"the table that names it, or delete the record of the first seen"
            )
        resumed = False  # what an earlier call left may have been of another file: from the start
    part.replace(target)
    _beside(part, ".json").unlink(missing_ok=True)
    return found


def _download(url: str, target: Path, expected: Expected) -> None:
    """Fill the file aside to its end, through breaks of the connection."""
    part = _beside(target, PART)
    furthest, failures = _size(part), 0
    with _session() as session:
        while expected.size is None or _size(part) != expected.size:
            try:
                _transfer(session, url, target, expected)
                return
            except requests.exceptions.RetryError as error:  # busy however often it was asked
                raise DownloadError(_cannot_reach(url, target, error)) from error
            except (_BrokenOffError, requests.RequestException) as error:
                failures = 0 if _size(part) > furthest else failures + 1
                furthest = max(furthest, _size(part))
                if failures == ATTEMPTS:
                    raise DownloadError(_cannot_reach(url, target, error)) from error
                time.sleep(BACKOFF_SECONDS * 2**failures)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise DownloadError(_no_space(url, target, None)) from error
                raise


def _transfer(session: requests.Session, url: str, target: Path, expected: Expected) -> None:
    part = _beside(target, PART)
    headers = _resume_headers(part, expected)
    with _answer(session, url, target, headers) as response:
        start = _start(response, part, headers)
        total = _total(response, start, expected)
        if expected.size is not None and total not in (None, expected.size):
            raise DownloadError(
                f"{url} has {total} bytes on the server, not {expected.size}: it is not the file "
                f"expected. Check the URL, and the size in the table that names it"
            )
        if (
            total is None
            and not expected.hashes
            and "chunked" not in response.headers.get("Transfer-Encoding", "")
        ):
            raise DownloadError(
                f"{url}: the server does not say how long the file is, and neither its size nor a "
                f"hash is known, so a cut could not be told. Put the file at {target} yourself"
            )
        if total is not None and total - start > shutil.disk_usage(part.parent).free:
            raise DownloadError(_no_space(url, target, total - start))
        write_json_whole(_beside(part, ".json"), {"url": url, "validator": _validator(response)})
        with (
            part.open("r+b" if start else "wb") as file,
            tqdm(
                desc=target.name,
                total=total,
                initial=start,
                unit="B",
                unit_scale=True,
                mininterval=1,
            ) as bar,
        ):
            file.seek(start)
            try:
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    file.write(chunk)
                    bar.update(len(chunk))
            except urllib3.exceptions.HTTPError as error:
                raise _BrokenOffError(f"the connection broke off: {error}") from error
            finally:
                file.flush()
                os.fsync(file.fileno())
    if total is not None and _size(part) < total:
        raise _BrokenOffError(f"the connection broke off at {_size(part)} of {total} bytes")


def _resume_headers(part: Path, expected: Expected) -> dict[str, str]:
    """Ask for the rest if it can be told that the rest is of the same file."""
    try:
        started = json.loads(_beside(part, ".json").read_text())
    except (FileNotFoundError, ValueError):
        started = {"validator": None}
    start = _size(part)
    if not start or not (started["validator"] or expected.hashes):
        return {}
    condition = {"If-Range": started["validator"]} if started["validator"] else {}
    return {"Range": f"bytes={start}-", **condition}


def _validator(response: requests.Response) -> str | None:
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _start(response: requests.Response, part: Path, headers: dict[str, str]) -> int:
    """Return at which byte the answer begins: a server may send all where a part was asked for."""
    if response.status_code != requests.codes.partial_content:
        return 0
    given = response.headers.get("Content-Range", "")
    if "Range" in headers and given.startswith(f"bytes {_size(part)}-"):
        return _size(part)
    _discard(part)
    raise _BrokenOffError(f"the server answered with the range {given!r}")


def _total(response: requests.Response, start: int, expected: Expected) -> int | None:
    length = response.headers.get("Content-Length")
    return start + int(length) if length is not None else expected.size


@contextmanager
def _answer(
    session: requests.Session, url: str, target: Path, headers: dict[str, str]
) -> Iterator[requests.Response]:
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            _discard(_beside(target, PART))
            raise _BrokenOffError("the server has no more bytes than were there")
        if not response.ok:
            raise DownloadError(
                f"{url} answered {response.status_code} {response.reason}. Check the URL; if you "
                f"can get the file another way, put it at {target}"
            )
        yield response


def _session() -> requests.Session:
    session = requests.Session()
    # Lengths and ranges count the bytes of the file, so no compression on the way.
    session.headers["Accept-Encoding"] = "identity"
    retry = urllib3.Retry(
        total=None,
        connect=0,
        read=0,
        status=ATTEMPTS,
        backoff_factor=BACKOFF_SECONDS,
        status_forcelist=BUSY,
        respect_retry_after_header=True,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, ".json").unlink(missing_ok=True)


def _cannot_reach(url: str, target: Path, error: Exception) -> str:
    return (
        f"{url} could not be fetched ({error}). Run again later: it goes "
        f"on where it stopped. Without internet here, fetch it elsewhere and put it at {target}"
    )


def _no_space(url: str, target: Path, needed: int | None) -> str:
    free = shutil.disk_usage(target.parent).free
    wanted = "more" if needed is None else f"{needed / 1e9:.3f} GB more"
    return (
        f"{url} needs {wanted} in {target.parent}, which has {free / 1e9:.3f} GB free. Free some "
        f"space or set another cache folder"
    )
