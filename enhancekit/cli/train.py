"""``enhancekit train``: run a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from enhancekit.cli.choices import Device
from enhancekit.cli.output import progress
from enhancekit.errors import OptionError

__all__ = ["train"]


def train(
    recipe: Annotated[
        str, typer.Argument(help="A TOML file, or package:path of one that a plugin ships.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value over the recipe; may be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    device: Device = "auto",
) -> None:
    """Train a network by a recipe."""
    try:
        from enhancekit.training.loop import Trainer
        from enhancekit.training.recipe import read_recipe
    except ModuleNotFoundError as error:
        raise OptionError(
            f"training needs {error.name}; install it with: pip install 'enhancekit[train]'"
        ) from error

    trainer = Trainer(read_recipe(recipe, changes or ()), resume=resume, device=device)
    if not trainer.is_main:
        for _ in trainer.run():  # another process speaks for all
            pass
        return
    for line in trainer.skipped:
        typer.echo(f"left out: {line}")
    for line in trainer.notes:
        typer.echo(f"note: {line}")
    gigabytes = trainer.data.cached_bytes / 1e9
    found = [f"{len(trainer.data)} training pictures ({gigabytes:.2f} GB in memory)"]
    found += [f"{len(p)} held out of {s}" for s, p in trainer.held_out.items()]
    typer.echo(", ".join(found))
    with progress() as shown:
        task = shown.add_task("training", total=trainer.recipe.run.steps, completed=trainer.step)
        for done in trainer.run():
            terms = ", ".join(f"{k} {v:.4f}" for k, v in done.terms.items())
            shown.update(task, completed=done.step, description=f"loss {done.loss:.4f} ({terms})")
            if done.psnr:
                figures = ", ".join(f"{s} {v:.2f} dB" for s, v in done.psnr.items())
                typer.echo(f"step {done.step}: loss {done.loss:.4f}; held out {figures}")
    typer.echo(f"weights: {trainer.out / 'best.safetensors'}")
