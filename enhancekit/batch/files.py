"""`enhance_files`: pictures by name, one after the other."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from enhancekit.atomic import put_in_place
from enhancekit.batch.crew import Crew
from enhancekit.batch.work import Job, Plan, said_of
from enhancekit.errors import EnhanceKitError, ImageError, OptionError
from enhancekit.inference.enhancer import Enhancer

__all__ = ["enhance_files"]


def enhance_files(
    pairs: Iterable[tuple[Path, Path]],
    plan: Plan,
    loaded: Enhancer,
    *,
    time_limit: float | None = None,
) -> Iterator[tuple[Job, str | None, float]]:
    """Enhance files into others, which appear whole or not at all.

    Parameters
    ----------
    pairs : iterable of (Path, Path)
        Inputs and outputs; what exists there is replaced.
    plan : Plan
        How they are made.
    loaded : Enhancer
        The plan's.
    time_limit : float, optional
        Seconds for each; one that takes longer fails.

    Yields
    ------
    job : Job
        With the size of the output, if there is one.
    error : str or None
        Why there is none.
    seconds : float
        How long it took.

    Raises
    ------
    OptionError
        If the time limit isn't above 0.

    Examples
    --------
    >>> from PIL import Image
    >>> home = Path(tempfile.mkdtemp())
    >>> Image.new("L", (4, 3), 9).save(home / "a.png")
    >>> pairs = [(home / "a.png", home / "b.png")]
    >>> plan = Plan(enhancer="gamma")
    >>> [(j.size, error) for j, error, _ in enhance_files(pairs, plan, plan.load())]
    [((4, 3), None)]
    """
    if time_limit is not None and not time_limit > 0:
        raise OptionError(f"the time limit is above 0 seconds, not {time_limit}")
    for source, target in pairs:
        begun = time.perf_counter()
        job = Job(source=source, target=target, staged=target)
        error = _made(plan, loaded, job, time_limit)
        said = None if error is None else said_of(error, source)
        yield job, said, time.perf_counter() - begun


def _made(plan: Plan, loaded: Enhancer, job: Job, time_limit: float | None) -> BaseException | None:
    """Make a file; one that is given up may go on, but in a folder that is gone."""
    try:
        place = Path(os.path.realpath(job.target))  # a link stays one
        with tempfile.TemporaryDirectory(
            dir=place.parent, prefix=".enhancekit-", ignore_cleanup_errors=True
        ) as folder:
            job.staged = Path(folder, job.target.name)
            if time_limit is None:
                plan.make(loaded, job)
            else:
                crew: Crew[Job, None] = Crew(lambda j: plan.make(loaded, j), 1, time_limit)
                crew.start(job)
                _, error = crew.next()
                crew.close()
                if error is not None:
                    return error
            put_in_place(job.staged, place)
    except EnhanceKitError as error:
        return error
    except OSError as error:
        return ImageError(f"{job.target} cannot be written: {error.strerror or error}")
    return None
