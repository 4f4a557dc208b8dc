"""Weights to and from the Hugging Face Hub: safetensors alone, and a model card."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from enhancekit.errors import OptionError, WeightsError
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.saved import of_card
from enhancekit.plain import first_line
from enhancekit.weights import Card, read_card

__all__ = ["load_from_hub", "model_card", "push"]

logger = logging.getLogger(__name__)

_FILE = "model.safetensors"
_PLACE = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")
_LICENCES = frozenset(
    {
        *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "mpl-2.0", "unlicense"),
        *("gpl-3.0", "lgpl-3.0", "agpl-3.0"),
        *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
    }
)
"""What the Hub knows by these names; anything else is "other" there, with a name of its own."""


def push(enhancer: Enhancer, repo: str, *, private: bool = False, **facts: Any) -> str:
    """Upload an enhancer's weights to the Hugging Face Hub, with a model card.

    The repository is made if there is none. You need to be logged in (``hf auth login``, or the
    environment's ``HF_TOKEN``).

    Parameters
    ----------
    enhancer : Enhancer
        A registered network, trained or as shipped.
    repo : str
        ``"user/name"``.
    private : bool
        Whether a repository that is made is private.
    **facts
        As for `Enhancer.save`. A licence must be stated, here or by the weights' own card.

    Returns
    -------
    str
        What `enhancekit.load` takes to load exactly this: ``"hub:user/name@commit"``.

    Raises
    ------
    OptionError
        If huggingface_hub is not installed, the name is none, or the weights cannot be saved.
    WeightsError
        If no licence is stated, or the Hub cannot be reached or refuses.
    """
    library = _library()
    if not _PLACE.fullmatch(repo) or "@" in repo:
        raise OptionError(f"a repository is called 'user/name', not {repo!r}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, _FILE)
        enhancer.save(path, **facts)
        card = read_card(path)
        if not card.license:
            raise WeightsError(
                f"the weights of {enhancer.entry} state no licence, without which nobody may use "
                "them; pass e.g. license='cc-by-4.0'"
            )
        Path(folder, "README.md").write_text(model_card(card, repo), "utf-8")
        try:
            api = library.HfApi(library_name="enhancekit")
            api.create_repo(repo, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message=f"Upload {card.name}"
            )
        except Exception as error:  # the transport has errors of its own
            raise WeightsError(
                f"{repo} cannot be uploaded: {first_line(error)}. Log in with `hf auth login`; "
                "without a connection, enhancer.save(path) keeps the weights for later"
            ) from error
    return f"hub:{repo}@{commit.oid}"


def load_from_hub(
    place: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    tile: str | int | None = "auto",
    engine: str = "auto",
    sha256: str = "",
) -> Enhancer:
    """Load what `push` uploaded: ``enhancekit.load("hub:user/name@commit")``.

    Parameters
    ----------
    place : str
        ``"user/name"`` or ``"user/name@revision"``; pin a commit to get the same weights always.
        A file that was fetched before is taken from huggingface_hub's cache.
    device, precision, tile, engine
        As for `enhancekit.load`.
    sha256 : str
        What the file's SHA-256 must be.

    Raises
    ------
    OptionError
        If huggingface_hub is not installed, or the place is no repository.
    WeightsError
        If the file cannot be fetched, or is not the one that was asked for, or no weights of ours.
    UnknownNameError
        If the plugin that has the network is not installed.
    """
    library = _library()
    asked = _PLACE.fullmatch(place)
    if asked is None:
        raise OptionError(f"hub:user/name or hub:user/name@revision, not {f'hub:{place}'!r}")
    path = _fetched(library, asked["repo"], asked["revision"])
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    # the cache keeps a large file under its SHA-256, so that a damaged one shows
    stored = path.resolve().name
    expected = sha256.lower() or (stored if re.fullmatch("[0-9a-f]{64}", stored) else found)
    if found != expected:
        raise WeightsError(
            f"{path} of hub:{place} has the SHA-256 {found}, expected {expected}; if the latter is "
            "right, delete the file and load again"
        )
    if asked["revision"] is None:
        logger.info("hub:%s is now hub:%s@%s", place, place, path.parent.name)
    how = {"device": device, "precision": precision, "tile": tile, "engine": engine}
    return of_card(path, f"hub:{place}", "hub", asked["repo"], how)


def _fetched(library: ModuleType, repo: str, revision: str | None) -> Path:
    errors = importlib.import_module("huggingface_hub.errors")
    at = f"hub:{repo}" + (f"@{revision}" if revision else "")
    try:
        return Path(library.hf_hub_download(repo, _FILE, revision=revision))
    except errors.LocalEntryNotFoundError as error:
        raise WeightsError(
            f"{at} is not in the cache and the Hub cannot be reached. Connect once and load it, "
            f"or bring its {_FILE} and use load(NAME, weights=FILE)"
        ) from error
    except errors.EntryNotFoundError as error:
        raise WeightsError(
            f"{at} has no {_FILE}; only what enhancekit.push uploaded can be loaded"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise WeightsError(
            f"{at} does not exist, or needs you to log in with `hf auth login`"
        ) from error
    except Exception as error:  # the transport has errors of its own
        raise WeightsError(f"{at} cannot be fetched: {first_line(error)}") from error


def _library() -> ModuleType:
    try:
        return importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise OptionError(
            "the Hugging Face Hub needs huggingface_hub; install it with: "
            "pip install 'enhancekit[hub]'"
        ) from error


def model_card(card: Card, repo: str) -> str:
    """Write a model card as the Hub shows it: Markdown behind a header of YAML.

    Parameters
    ----------
    card : Card
        What is known of the weights.
    repo : str
        ``"user/name"``.

    Examples
    --------
    >>> card = Card(name="net", backbone="acme:net", config={}, license="MIT")
    >>> print(model_card(card, "me/net").splitlines()[1])
    license: "mit"
    """
    licence = card.license.lower()
    header: dict[str, Any] = {"license": licence if licence in _LICENCES else "other"}
    if header["license"] == "other":
        header["license_name"] = card.license
    header["library_name"] = "enhancekit"
    header["pipeline_tag"] = "image-to-image"
    header["tags"] = ["image-enhancement", *([card.task] if card.task else [])]
    # a JSON value on one line is YAML, whatever stands in it
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    lines += [
        f"# {card.name}",
        "",
        f"Weights of the network `{card.backbone}` for enhancekit"
        + (f", for {card.task}." if card.task else "."),
        "",
        "```python",
        "import enhancekit",
        "",
        f'enhancekit.load("hub:{repo}").enhance("photo.jpg").save("better.png")',
        "```",
    ]
    for title, text in (
        ("Licence", card.license),
        ("Data", card.data),
        ("Figures", _table(card.figures)),
        ("Limits", card.limits),
        ("Training", " ".join(filter(None, (card.training, card.date)))),
        ("Config", _table(card.config)),
    ):
        if text:
            lines += ["", f"## {title}", "", text]
    return "\n".join(lines) + "\n"


def _table(values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    cells = ([cell.replace("|", r"\|") for cell in row] for row in texts.items())
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in cells)])
