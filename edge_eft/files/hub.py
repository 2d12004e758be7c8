"""The Hugging Face hub: what a repository holds, and the bytes of its files.

The only module that imports huggingface_hub, and whose commands need a network. Endpoint, token,
proxies, timeouts, offline mode and the cache's place are huggingface_hub's own (HF_ENDPOINT,
HF_TOKEN, HF_HUB_OFFLINE, HF_HOME …). A token goes to the hub alone: where it sends us to another
host, the HTTP client leaves it behind. It knows nothing of recipes, and writes nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import EdgeEftError, HubError
from . import hub_cache
from .hub_file import check_file_name, check_repo
from .hub_files import RemoteFile, Repository
from .plain_text import reason

_LOOK_UP = 20  # seconds to wait for an answer about a repository
_BUSY = {408, 429, 500, 502, 503, 504}


class UnreachableError(HubError):
    """There is no answer from the hub now; what is in the cache may do.

    Attributes:
        again: whether another try may help.
        seconds: how long the hub asks to wait before it, if it says so.
    """

    def __init__(self, message: str, *, again: bool = True, seconds: float | None = None) -> None:
        super().__init__(message)
        self.again, self.seconds = again, seconds


def look_up(repo: str, revision: str | None = None) -> Repository:
    """Return what the hub has of a repository.

    Args:
        repo: OWNER/NAME.
        revision: a commit; None is the newest of the main branch.

    Raises:
        UnreachableError: no answer.
        HubError: no such repository, no access, or an answer that cannot be one.
    """
    check_repo(repo)
    hub = _hub()
    with _telling(repo):
        info = hub.HfApi().model_info(
            repo, revision=revision, files_metadata=True, timeout=_LOOK_UP
        )
    files = {}
    with _telling(repo):
        for each in info.siblings or ():
            with contextlib.suppress(
                EdgeEftError
            ):  # a name or digest that cannot be one is not taken
                size = each.lfs.size if each.lfs else each.size
                digest = hub_cache.check_digest(each.lfs.sha256 if each.lfs else each.blob_id)
                if type(size) is int and 0 <= size < 1 << 50:
                    check_file_name(each.rfilename)
                    files[each.rfilename] = RemoteFile(each.rfilename, size, digest)
        card = info.card_data.to_dict() if info.card_data else {}
        licence = str(card.get("license_name") or card.get("license") or "")
        commit = hub_cache.check_commit(info.sha)
    if revision is not None and commit != revision:
        raise HubError(f"{repo}: the hub answers for {revision:.12} with {commit:.12}")
    return Repository(repo, commit, MappingProxyType(files), licence, bool(info.gated))


def endpoint() -> str:
    """Return the hub's address, without a password that may be in it."""
    address = str(_hub().constants.ENDPOINT)
    scheme, _, rest = address.rpartition("://")
    return f"{scheme or 'https'}://{rest.rpartition('@')[2]}"


def reachable(timeout: float = 5.0) -> tuple[bool, str]:
    """Ask the hub for a sign of life, without a token. Returns whether it gave one, and words."""
    began = time.monotonic()
    try:
        hub = _hub()
        with _telling("the hub"):
            hub.get_session().head(hub.constants.ENDPOINT, timeout=timeout, follow_redirects=False)
    except HubError as error:
        return False, str(error)
    return True, f"{endpoint()} answers within {time.monotonic() - began:.1f} s"


def stream(repository: Repository, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes [start, stop) of a file as they come, and never more.

    Raises UnreachableError if another try may help, HubError if not.
    """
    hub, name = _hub(), f"{repository.repo}/{file.path}"
    url = hub.hf_hub_url(repository.repo, file.path, revision=repository.commit)
    asked = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    headers = {**hub.utils.build_hf_headers(), **asked}
    timeout = hub.constants.HF_HUB_DOWNLOAD_TIMEOUT
    with (
        _telling(name),
        hub.get_session().stream("GET", url, headers=headers, timeout=timeout) as response,
    ):
        hub.utils.hf_raise_for_status(response)
        passed = 0 if response.status_code == 200 else start  # 200: the whole file, from 0
        stated = response.headers.get("Content-Range", "").rpartition("/")[2]
        if response.status_code == 200:
            stated = response.headers.get("Content-Length", "")
        if stated.isdecimal() and int(stated) != file.size:
            raise HubError(
                f"{name}: the hub sends a file of {int(stated):,} bytes and lists {file.size:,}; "
                "try again later"
            )
        for block in response.iter_bytes():
            begin, passed = passed, passed + len(block)
            wanted = block[max(start - begin, 0) : max(stop - begin, 0)]
            if wanted:
                yield wanted
            if passed >= stop:
                return
    raise UnreachableError(f"{name}: the connection ended early")


@contextlib.contextmanager
def locked(lock: Path, name: str, told: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a blob, which huggingface_hub respects as well."""
    hub = _hub()
    from filelock import Timeout

    with contextlib.ExitStack() as stack:
        try:
            try:
                stack.enter_context(hub.utils.WeakFileLock(lock, timeout=0.2))
            except Timeout:
                told(f"{name}: another program is fetching it; waiting")
                stack.enter_context(hub.utils.WeakFileLock(lock))
        except OSError as error:
            raise HubError(f"{lock}: cannot be locked ({reason(error)})") from None
        yield


@functools.cache
def _hub() -> Any:
    """Return huggingface_hub, silenced: what it has to say comes as its exceptions."""
    os.environ["HF_HUB_VERBOSITY"] = "critical"  # each of its modules sets this level when imported
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import huggingface_hub
            import huggingface_hub.constants
            import huggingface_hub.errors
            import huggingface_hub.utils
    except ValueError as error:  # a number in its environment variables that is none
        raise HubError(f"huggingface_hub refuses its environment (HF_…): {error}") from None
    warnings.filterwarnings("ignore", module="huggingface_hub")
    return huggingface_hub


@contextlib.contextmanager
def _telling(name: str) -> Iterator[None]:
    """Turn what huggingface_hub and its HTTP client raise into a HubError in one line."""
    errors = _hub().errors
    try:
        yield
    except HubError:
        raise
    except errors.OfflineModeIsEnabled:
        raise UnreachableError(
            f"{name}: HF_HUB_OFFLINE is set, and the cache does not have it; unset it to fetch",
            again=False,
        ) from None
    except errors.HfHubHTTPError as error:
        raise _refusal(name, error) from None
    except (errors.HTTPError, OSError) as error:
        raise UnreachableError(
            f"{name}: {endpoint()} cannot be reached ({_said(error)}); check the network, "
            "HF_ENDPOINT and proxies"
        ) from None
    except ImportError as error:  # the HTTP client's, for a proxy of another kind than HTTP's
        raise HubError(f"{name}: the proxy is of a kind that is not installed ({error})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise HubError(
            f"{name}: {endpoint()} gives an answer that is not the hub's ({_said(error)}); check "
            "HF_ENDPOINT, and whether the network asks you to log in"
        ) from None


def _said(error: Exception) -> str:
    """Return an error in words, without the token: a client cites a header that it refuses."""
    token = _hub().get_token()
    if token and not (token.isascii() and token.isprintable()):
        return "your token has characters that no token has; set HF_TOKEN again"
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return " ".join((said.replace(token, "…") if token else said).split())[:200]


def _refusal(name: str, error: Any) -> HubError:
    """Return what a refusal of the hub's means, and what to do."""
    errors, repo = _hub().errors, "/".join(name.split("/")[:2])
    status, page = error.response.status_code, f"{endpoint()}/{repo}"
    login = "`hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        if _hub().get_token() is None:
            return HubError(
                f"{repo} is gated: accept its licence on {page} in a browser, then {login}, and "
                "pull again"
            )
        return HubError(
            f"{repo} is gated, and your token has no access yet: accept its licence on {page}, "
            "wait where its authors decide, and pull again"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{repo} has not the revision that is asked for; --update takes its newest")
    if isinstance(error, errors.EntryNotFoundError):
        return HubError(f"{name} is not there any more; --update takes what there is")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"{repo} is not on the hub, or is private: check the name; for a private one {login}"
        )
    if status in (401, 403):
        return HubError(
            f"{repo}: the hub refuses access ({status}); your token is not valid or lacks the "
            f"right to read it: {login}"
        )
    if status in _BUSY:
        after = error.response.headers.get("Retry-After", "")
        seconds = float(after) if after.isdecimal() and len(after) < 6 else None
        when = f", and asks to wait {seconds:.0f} s" if seconds else "; try again later"
        why = "too many requests" if status == 429 else "trouble of its own"
        return UnreachableError(f"{name}: {endpoint()} has {why} ({status}){when}", seconds=seconds)
    return HubError(f"{name}: the hub refuses with HTTP status {status}; try again later")
