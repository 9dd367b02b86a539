"""Files from the network: resumed where they broke off, and named only once they are proven.

Bytes go to `NAME.part`; a later call asks the server for the rest (HTTP Range, RFC 9110). The
file gets its name, by one rename, only after its checksum matches.
"""

from __future__ import annotations

import hashlib
import os
import re
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from sciffusion.errors import InputError

CHUNK = 1 << 18
DIGITS = {"md5": 32, "sha256": 64}


class NotFound(InputError):
    """The server answers that it has no such file."""


def digest(path: Path, algorithm: str) -> str:
    """Hexadecimal checksum of a file; `algorithm` is "sha256" or "md5"."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest()


def download(
    url: str,
    folder: str | os.PathLike[str],
    checksum: str | None,
    timeout: float = 30.0,
    quiet: bool = False,
) -> Path:
    """The file at `url`, kept in `folder` under its own name and downloaded if it is not there.

    Args:
        url: an http or https address.
        folder: made if need be.
        checksum: "sha256:..." or "md5:..." in hexadecimal; None where nobody knows it, so that the
            caller has to see whether the file is whole.
        timeout: seconds without an answer before giving up.
        quiet: no progress bar, as for one of many files.

    Raises:
        NotFound: the server has no such file.
        InputError: offline, broken off (call again to go on) or a wrong checksum (the
            downloaded file is removed; a file that was there before is left).
    """
    algorithm, expected = ("", "") if checksum is None else _parse_checksum(checksum)
    parts = urlsplit(url)
    name = Path(unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not name:
        raise InputError(f"cannot download {url!r}: give an http or https address of a file")
    final = Path(folder) / name
    if final.exists():
        if expected and (got := digest(final, algorithm)) != expected:
            raise InputError(
                f"{final} has {algorithm} {got}, expected {expected}: "
                "remove it to download it again"
            )
        return final

    part = final.with_name(name + ".part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise InputError(f"cannot write {part}: {error.strerror}; choose another folder") from error
    _fetch(url, part, timeout, quiet)
    if expected and (got := digest(part, algorithm)) != expected:
        part.unlink()
        raise InputError(
            f"{url} has {algorithm} {got}, expected {expected}: the bad file was removed; "
            "try again, or check the address and the checksum"
        )
    os.replace(part, final)
    return final


def _parse_checksum(checksum: str) -> tuple[str, str]:
    algorithm, _, value = checksum.lower().partition(":")
    if not re.fullmatch(r"[0-9a-f]+", value) or len(value) != DIGITS.get(algorithm):
        raise InputError(f"checksum {checksum!r} must be sha256: or md5: and its hexadecimal value")
    return algorithm, value


def _fetch(url: str, part: Path, timeout: float, quiet: bool) -> None:
    """Append the rest of `url` to `part`, or write all of it where the server cannot resume."""
    have = part.stat().st_size
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urlopen(request, timeout=timeout) as response:
            _save(url, response, part, have, quiet)
    except HTTPError as error:
        if error.code == 416:  # nothing is left to send: the checksum will tell if it is right
            return
        kind = NotFound if error.code in (404, 410) else InputError
        raise kind(
            f"cannot download {url}: the server answers {error.code} {error.reason}; "
            "check the address"
        ) from error
    except URLError as error:
        raise InputError(
            f"cannot reach {url}: {error.reason}; check the network, "
            f"or put the file into {part.parent} yourself"
        ) from error
    except (HTTPException, ConnectionError, TimeoutError) as error:
        raise InputError(_broken(url, part, repr(error))) from error
    except OSError as error:
        raise InputError(f"cannot write {part}: {error.strerror}; make room or move it") from error


def _save(url: str, response: HTTPResponse, part: Path, have: int, quiet: bool) -> None:
    resumes = response.status == 206
    if resumes and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise InputError(f"{url}: the server sent another range than asked; remove {part}")
    start = have if resumes else 0
    length = response.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with (
        part.open("ab" if resumes else "wb") as out,
        Progress(*columns, TransferSpeedColumn(), transient=True, disable=quiet) as bar,
    ):
        task = bar.add_task(part.stem, total=total, completed=start)
        while chunk := response.read(CHUNK):
            out.write(chunk)
            bar.advance(task, len(chunk))
    if total is not None and (size := part.stat().st_size) < total:
        raise InputError(_broken(url, part, f"{size} of {total} bytes came"))


def _broken(url: str, part: Path, reason: str) -> str:
    return f"download of {url} broke off ({reason}): run again to go on from {part}"
