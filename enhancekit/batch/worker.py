"""A process of Ray that makes files: what runs there, without Ray itself."""

from __future__ import annotations

import os
import pickle
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from enhancekit.batch.crew import Crew, LateError
from enhancekit.batch.work import Job, Plan, Settings, crew_of, said_of
from enhancekit.errors import DeviceError, EnhanceKitError, FolderError, ImageError, ImageWarning

__all__ = ["Ended", "Worker"]


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a job, and what was said meanwhile."""

    job: Job
    error: Exception | None
    warned: list[tuple[str, type[UserWarning]]]


class Worker:
    """Makes files, several in hand at once; the class of Ray's actors."""

    def __init__(self) -> None:
        self._warned: list[tuple[str, type[UserWarning]]] = []
        self._crew: Crew[Job, None]

    def open(  # noqa: PLR0917  Ray's handles take what they are given by place
        self,
        plan: Plan,
        settings: Settings,
        staging: Path,
        jobs: int,
        time_limit: float | None,
        threads: int,
    ) -> str | Exception:
        """Load the enhancer; returns where this is, or why it cannot be done here.

        Parameters
        ----------
        plan : Plan
            How the files are made.
        settings : Settings
            What it comes to where the run was begun; here it must come to the same.
        staging : Path
            Folder of unfinished files, in the output folder.
        jobs, time_limit
            As for `enhancekit.batch.enhance_folder`.
        threads : int
            How many to compute with.
        """
        here = f"process {os.getpid()} on {platform.node()}"
        # nobody reads what this process prints
        warnings.showwarning = lambda message, category, *_: self._warned.append(
            (str(message), ImageWarning if issubclass(category, ImageWarning) else UserWarning)
        )
        torch.set_num_threads(threads)
        try:
            if not staging.is_dir():
                raise FolderError(
                    f"{here} does not see {staging.parent}; the machines of a cluster must share "
                    "the folders under the same paths"
                )
            loaded = plan.load()
            found = plan.settings(loaded)
            if found != settings:
                raise DeviceError(
                    f"{here} would not make the same outputs: there it is {found}, where the run "
                    f"was begun {settings}; install the same versions"
                )
        except EnhanceKitError as error:
            return portable(error, f"Ray's {here}")
        self._crew = crew_of(plan, loaded, staging.parent, jobs=jobs, time_limit=time_limit)
        return here

    def step(self, jobs: list[Job]) -> Ended:
        """Begin jobs, wait until one of those in hand ends, and return it."""
        for job in jobs:
            self._crew.start(job)
        job, error = self._crew.next()
        said, self._warned = self._warned, []
        return Ended(job, None if error is None else portable(error, job.source), said)


def portable(error: BaseException, source: os.PathLike[str] | str) -> Exception:
    """Return an error that other processes can read, with the same words.

    Examples
    --------
    >>> portable(KeyError("x"), "a.png")
    ImageError("a.png: KeyError: 'x'")
    """
    if isinstance(error, EnhanceKitError | LateError):
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301  our own, of this moment
        except Exception:  # noqa: BLE001  a plugin's class may do anything there
            return ImageError(said_of(error, Path(source)))
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return error
    return ImageError(said_of(error, Path(source)))
