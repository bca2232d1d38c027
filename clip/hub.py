"""Files of repositories on the Hugging Face hub, through huggingface_hub: its cache, and its variables.

HF_HOME says where the cache is, HF_HUB_OFFLINE=1 keeps to it, HF_TOKEN opens repositories with conditions.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from clip.folders import UNWRITABLE, with_spare


def fetch(repository: str, names: Sequence[str], revision: str | None = None, cache: Path | None = None) -> Path | None:
    """The first of the files `names` that a repository has; None without any of them.

    What is in the cache at a commit is not asked for again. `cache` defaults to the hub's, or to the spare folder where
    nobody can write there.

    Raises:
        ValueError: huggingface_hub is missing, or no such repository or revision.
        ConnectionError: a file is not in the cache and cannot be fetched.
    """
    try:
        from huggingface_hub import constants
    except ImportError as error:
        raise ValueError(f'hf-hub:{repository} needs huggingface_hub ({error}): pip install huggingface_hub') from None
    return with_spare(partial(_fetch, repository, names, revision), cache or Path(constants.HF_HUB_CACHE))


def _fetch(repository: str, names: Sequence[str], revision: str | None, cache: Path) -> Path | None:
    """As `fetch`, with the cache in a folder.

    Raises:
        OSError: also where nobody can write there.
    """
    import huggingface_hub
    from huggingface_hub import errors

    asked = f'{repository}@{revision}' if revision else repository
    unreachable = None
    for name in names:
        try:
            return _download(repository, name, revision, cache)
        except errors.LocalEntryNotFoundError as error:  # offline; another file may be there
            # What was looked for before, and was not there, is noted in the cache.
            known = huggingface_hub.try_to_load_from_cache(repository, name, cache_dir=cache, revision=revision)
            if known is not huggingface_hub._CACHED_NO_EXIST:
                unreachable = unreachable or error
        except errors.EntryNotFoundError:
            continue
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
            reason = str(error).strip().splitlines()[0].rstrip('.')
            raise ValueError(
                f'hf-hub:{asked}: no such repository or revision, or it asks for a token ({reason}); expected '
                'hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION'
            ) from error
        except (OSError, errors.HfHubHTTPError) as error:
            if isinstance(error, OSError) and error.errno in UNWRITABLE:
                raise
            raise _unreachable(asked, name, error) from error
    if unreachable:
        raise _unreachable(asked, ' or '.join(names), unreachable) from unreachable
    return None


def _download(repository: str, name: str, revision: str | None, cache: Path) -> Path:
    import huggingface_hub

    try:
        huggingface_hub.get_token()
        token = None  # whatever huggingface_hub finds
    except OSError:  # its file is in a home that cannot be read: as for who has none
        token = False
    found = huggingface_hub.hf_hub_download(repository, name, revision=revision, cache_dir=cache, token=token)
    return Path(found)


def _unreachable(asked: str, names: str, error: Exception) -> ConnectionError:
    reason = str(error).strip().splitlines()[0].rstrip('.')
    return ConnectionError(
        f'hf-hub:{asked}: cannot fetch {names} ({reason}); fetch the repository by other means, and name its folder '
        'with local-dir:PATH'
    )


def commit_of(path: Path) -> str | None:
    """The commit that a file of the hub's cache belongs to; None for another file."""
    parts = path.parts
    return parts[parts.index('snapshots') + 1] if 'snapshots' in parts[:-2] else None


def cache_of(path: Path) -> Path | None:
    """The cache that a file of the hub's is in; None for another file."""
    parts = path.parts
    return Path(*parts[: parts.index('snapshots') - 1]) if 'snapshots' in parts[:-2] else None
