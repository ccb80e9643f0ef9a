"""`hf:DIR-or-org/repo?class=AutoModelForImageClassification`: transformers' model of a folder or a hub repository.

Of a repository only `config.json` is downloaded, once, into the cache of huggingface_hub; `?revision=` is a branch, tag
or commit. HF_HUB_OFFLINE, HF_TOKEN and the other variables of huggingface_hub apply.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ckptfix.errors import AccessFailed, CkptfixError, UnknownTarget
from ckptfix.targets.base import Target, TargetURI
from ckptfix.targets.transformers_config import config_target

_CONFIG = "config.json"


def resolve(uri: TargetURI) -> Target:
    """Find the config of a folder, or of a repository where no such folder exists, and build what it describes.

    Raises UnknownTarget for what does not exist, AccessFailed where the hub cannot be asked, and what `config_target`
    raises.
    """
    folder = Path(uri.body)
    options = {name: value for name, value in uri.query.items() if name != "revision"}
    if uri.body and folder.is_dir():
        if "revision" in uri.query:
            raise UnknownTarget("a folder has no revisions", where=uri.text, hint="leave 'revision' out")
        if not (folder / _CONFIG).exists():
            raise UnknownTarget(f"no {_CONFIG} in the folder", where=uri.text, hint="name a config file: config:FILE")
        return config_target(uri, folder / _CONFIG, options)
    if folder.is_file():
        raise UnknownTarget("is a file", where=uri.text, hint=f"write config:{uri.body}")
    return config_target(uri, _download(uri), options)


def _download(uri: TargetURI) -> Path:
    """Fetch the config into the cache; where the hub cannot be reached, find it there.

    The hub is asked once beforehand: `hf_hub_download` would repeat a failing request for half a minute.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    revision = None if "revision" not in uri.query else str(uri.query["revision"])
    try:
        get_hf_file_metadata(hf_hub_url(uri.body, _CONFIG, revision=revision))
        return Path(hf_hub_download(uri.body, _CONFIG, revision=revision))
    except HFValidationError as error:
        raise UnknownTarget(
            "no such folder, and no id of a repository", where=uri.text, hint="write hf:DIR or hf:org/repo"
        ) from error
    except Exception as error:  # the type of a network error is that of the HTTP client, which has changed
        reason = _reason(error, uri)
        if isinstance(reason, _Unreachable):
            with suppress(LocalEntryNotFoundError):
                return Path(hf_hub_download(uri.body, _CONFIG, revision=revision, local_files_only=True))
        raise reason from error


class _Unreachable(AccessFailed):
    """The hub gave no answer, or none that can be used: what is in the cache will do."""


def _reason(error: Exception, uri: TargetURI) -> CkptfixError:
    """Say what went wrong by the type of the error; special ones stand before those they derive from."""
    from huggingface_hub import errors

    where = uri.text
    match error:
        case errors.GatedRepoError() | errors.DisabledRepoError():
            return AccessFailed(
                "the hub does not give this repository out", where=where, hint="ask for access, and set HF_TOKEN"
            )
        case errors.RepositoryNotFoundError():
            hint = "check the name; a private repository needs HF_TOKEN"
            return UnknownTarget("no such folder, and no such repository on the hub", where=where, hint=hint)
        case errors.RevisionNotFoundError():
            return UnknownTarget(f"the repository has no revision '{uri.query.get('revision')}'", where=where)
        case errors.EntryNotFoundError() if not isinstance(error, errors.LocalEntryNotFoundError):
            return UnknownTarget(f"the repository has no {_CONFIG}", where=where, hint="name a file: config:FILE")
        case errors.OfflineModeIsEnabled():
            return _Unreachable(
                "no such folder, and the repository is not in the cache: HF_HUB_OFFLINE is set",
                where=where,
                hint="unset it once, or give a folder",
            )
        case errors.HfHubHTTPError():
            return _Unreachable(f"the hub answered {error.response.status_code}", where=where, hint="try again")
    return _Unreachable(
        f"no such folder, the repository is not in the cache, and the hub cannot be reached: {type(error).__name__}",
        where=where,
        hint="check the network, or give a folder",
    )
