"""Render ``examples/dark.jpg``: a still life of our own, ray-traced, then underexposed by a camera.

No photograph of anybody else's is needed to try the library: this script makes its sample. The
camera is modelled in linear light: exposure, shot noise, read noise, 8 bits.

    python examples/render_sample.py [SEED]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]

WIDTH, HEIGHT, OVERSAMPLING = 600, 400, 4
EXPOSURE = 0.045  # of a well-exposed picture
LIGHT = np.array([-3.5, 5.0, -2.0])
BALLS = (  # centre, radius, colour, gloss
    ((-1.55, 0.75, 1.2), 0.75, (0.72, 0.12, 0.09), 0.35),
    ((0.15, 0.55, 0.1), 0.55, (0.10, 0.33, 0.55), 0.60),
    ((1.45, 0.95, 1.9), 0.95, (0.80, 0.62, 0.20), 0.15),
    ((1.25, 0.32, -0.5), 0.32, (0.15, 0.45, 0.20), 0.30),
    ((-0.75, 0.28, -0.6), 0.28, (0.78, 0.76, 0.70), 0.50),
)


def waves(points: Floats, seed: int, octaves: int = 5) -> Floats:
    """Sum sine waves of random direction, as cheap smooth noise in [-1, 1]."""
    draw = np.random.default_rng(seed)
    total = np.zeros(points.shape[:-1])
    for octave in range(octaves):
        for _ in range(3):
            direction = draw.normal(size=3) * 1.9**octave
            total += np.sin(points @ direction + draw.uniform(0, 6.3)) / 1.7**octave / 3
    return total


def hit_ball(origin: Floats, ray: Floats, centre: Floats, radius: float) -> Floats:
    """Return the distance to a ball along each ray, infinite where it is missed."""
    to_ball = origin - centre
    b = (to_ball * ray).sum(-1)
    under = b**2 - (to_ball**2).sum(-1) + radius**2
    near = -b - np.sqrt(np.maximum(under, 0))
    return np.where((under > 0) & (near > 1e-3), near, np.inf)


def surface(points: Floats, ball: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Return colour, normal and gloss of the table (-2), the wall (-1) or a ball (0...)."""
    rings = np.sin(9 * points[..., 0] + 2.5 * waves(points * [0.4, 1, 1.3], 1))
    grain = 0.12 * waves(points * [14, 1, 2.5], 2)
    wood = np.array([0.42, 0.25, 0.13]) * (1 + 0.22 * rings + grain)[..., None]
    stripe = (np.mod(points[..., 0] * 1.25, 1) < 0.5)[..., None]
    wall = np.where(stripe, [0.52, 0.56, 0.50], [0.62, 0.63, 0.55])
    wall = wall * (1 + 0.07 * waves(points * 6, 3))[..., None]
    table = (ball == -2)[..., None]
    colour = np.where(table, wood, wall)
    normal = np.where(table, [0.0, 1.0, 0.0], [0.0, 0.0, -1.0])
    gloss = np.where(ball == -2, 0.12, 0.0)
    for i, (centre, radius, paint, shine) in enumerate(BALLS):
        here = ball == i
        skin = np.array(paint) * (1 + 0.25 * waves(points * (3 + 2 * i), 10 + i))[..., None]
        colour = np.where(here[..., None], skin, colour)
        normal = np.where(here[..., None], (points - np.array(centre)) / radius, normal)
        gloss = np.where(here, shine, gloss)
    return colour.clip(0.01, 0.95), normal, gloss


def trace(origin: Floats, ray: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return where each ray ends and on what."""
    table = np.where(ray[..., 1] < -1e-6, -origin[..., 1] / ray[..., 1], np.inf)
    wall = np.where(ray[..., 2] > 1e-6, (4.2 - origin[..., 2]) / ray[..., 2], np.inf)
    distances = [table, wall] + [
        hit_ball(origin, ray, np.array(centre), radius) for centre, radius, *_ in BALLS
    ]
    stacked = np.stack(distances)
    nearest = stacked.argmin(0)
    return origin + ray * np.minimum(stacked.min(0), 50)[..., None], nearest - 2


def render(draw: np.random.Generator) -> Floats:
    """Render the scene in linear light, shape (HEIGHT, WIDTH, 3), a well-exposed picture."""
    n = OVERSAMPLING
    y, x = np.mgrid[0 : HEIGHT * n, 0 : WIDTH * n] + 0.5
    ray = np.stack(
        ((x / n - WIDTH / 2) / 520, (HEIGHT * 0.42 - y / n) / 520 - 0.14, np.ones_like(x)), -1
    )
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    origin = np.broadcast_to(np.array([0.0, 1.7, -5.2]), ray.shape)
    points, thing = trace(origin, ray)
    colour, normal, gloss = surface(points, thing)
    # a lamp of some size: each ray looks at a random point of it, which softens the shadows
    to_lamp = LIGHT + draw.normal(scale=0.35, size=points.shape) - points
    distance = np.linalg.norm(to_lamp, axis=-1, keepdims=True)
    to_lamp /= distance
    blocked = np.zeros(points.shape[:2], bool)
    for centre, radius, *_ in BALLS:
        reach = hit_ball(points + 1e-3 * normal, to_lamp, np.array(centre), radius)
        blocked |= reach < distance[..., 0]
    facing = (normal * to_lamp).sum(-1).clip(0) * ~blocked
    mirrored = ray - 2 * (ray * normal).sum(-1, keepdims=True) * normal
    shine = gloss * ((mirrored * to_lamp).sum(-1).clip(0) ** 40) * ~blocked
    sky = 0.16 + 0.10 * normal[..., 1].clip(0)
    warm, cool = np.array([1.0, 0.86, 0.68]), np.array([0.75, 0.88, 1.0])
    lamp = 30 / distance**2
    light = lamp * facing[..., None] * warm + sky[..., None] * cool
    picture = colour * light + (lamp[..., 0] * shine)[..., None] * warm
    return picture.reshape(HEIGHT, n, WIDTH, n, 3).mean((1, 3))


def photograph(scene: Floats, exposure: float, draw: np.random.Generator) -> NDArray[np.uint8]:
    """Expose a linear picture: shot noise of 6,000 electrons at white, read noise of 4, sRGB."""
    electrons = draw.poisson(scene * exposure * 6000) + draw.normal(scale=4, size=scene.shape)
    linear = (electrons / 6000).clip(0, 1)
    encoded = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().astype(np.uint8)


if __name__ == "__main__":
    generator = np.random.default_rng(int(sys.argv[1]) if sys.argv[1:] else 0)
    target = Path(__file__).with_name("dark.jpg")
    dark = photograph(render(generator), EXPOSURE, generator)
    Image.fromarray(dark).save(target, quality=95, subsampling=0)
    print(f"rendered {target}")
