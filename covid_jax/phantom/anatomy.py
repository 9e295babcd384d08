"""A synthetic patient: a body, a tree of vessels and lesions, drawn once in three dimensions.

Coordinates are millimetres in the patient: x to the right of the image (the patient's left), y to
the back, z from the aortic arch to the feet. A shape is the distance from its outline, negative
inside.
"""

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

LABELS = {1: "ground-glass", 2: "consolidation", 3: "pleural effusion"}
GROUND_GLASS, CONSOLIDATION, EFFUSION = LABELS
LESION_LENGTH = 75.0  # mm of the scan; the rest, at both ends, is free of lesions
CHEST_LENGTH = 180.0  # mm, aortic arch to the domes of the diaphragm

Plane: TypeAlias = Float[np.ndarray, "*shape"]
Segments: TypeAlias = Float[np.ndarray, "_ 7"]  # x, y, z of both ends, radius


def _between(low: float, high: float) -> Any:
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class Anatomy:
    """Parameters of a body, uniform in these ranges: mm, HU, radians or relative."""

    half_width: float = _between(112, 136)  # of the rib cage
    half_height: float = _between(84, 106)
    asymmetry: float = _between(-0.04, 0.04)
    muscle: float = _between(15, 24)
    fat: float = _between(5, 28)
    heart: float = _between(0.85, 1.12)
    heart_shift: float = _between(-6, 6)
    dome: float = _between(0.72, 0.95)  # level of the diaphragm
    rib_phase: float = _between(0, 1)
    bone: float = _between(350, 700)
    parenchyma: float = _between(-885, -825)
    dependent: float = _between(50, 100)  # denser at the back
    atelectasis: float = _between(0, 110)  # a denser rim at the back, no lesion
    noise: float = _between(10, 35)
    kernel: float = _between(0.5, 0.9)  # pixels
    rotation: float = _between(-0.09, 0.09)
    scale: float = _between(0.9, 1.04)
    shift_x: float = _between(-10, 10)
    shift_y: float = _between(-14, 2)
    table_gap: float = _between(2, 9)
    first_z: float = _between(0, 75)  # top of the scan
    first_lesion: float = _between(8, 17)  # top of the lesions below the top of the scan


RANGES = {item.name: item.metadata["range"] for item in fields(Anatomy)}


class Lesion(NamedTuple):
    """A blob in the lung's own coordinates, so that it follows the pleura; radians and mm."""

    label: int
    side: int  # -1: the lung on the picture's left
    angle: float  # about the lung's centre; 0 is lateral, pi / 2 the back
    depth: float  # below the pleura
    z: float
    along: float  # half-size along the pleura
    across: float  # half-size into the lung
    axial: float  # half-size along z
    hu: float


# Lowest and highest half-sizes: along, across, axial.
_SMALL = (5, 4.5, 8), (14, 10, 14)
_LARGE = (16, 12, 16), (60, 30, 36)
_POOL = (35, 9, 24), (75, 24, 37)
_HU = {GROUND_GLASS: (-640, -470), CONSOLIDATION: (-40, 40), EFFUSION: (2, 22)}


class Patient(NamedTuple):
    """Body, vessels and lesions of one patient."""

    body: Anatomy
    lattice: Float[np.ndarray, "32 32 32"]  # random values that smooth noise interpolates
    vessels: Segments
    lesions: list[Lesion]


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draws a patient in three dimensions."""
    body = Anatomy(**{name: float(rng.uniform(*limits)) for name, limits in RANGES.items()})
    lattice = rng.standard_normal((32, 32, 32), np.float32)
    return Patient(body, lattice, _draw_vessels(body, rng), _draw_lesions(body, rng))


def _draw_vessels(body: Anatomy, rng: np.random.Generator) -> Segments:
    """A tree from either hilum through random points of its lung; radii follow Murray's law."""
    trees = []
    for side in (-1, 1):
        points = rng.uniform((0, -110, -20), (150, 110, 200), (2800, 3)) * (side, 1, 1)
        points = points[Section(body, *points.T).lungs < -3]
        hilum = np.array([side * 28.0, 8.0, 70.0])
        order = np.argsort(np.linalg.norm(points - hilum, axis=1))
        nodes = np.concatenate([hilum[None], points[order]])
        parent, length = np.zeros(len(nodes), int), np.zeros(len(nodes))
        for i in range(1, len(nodes)):
            steps = np.linalg.norm(nodes[:i] - nodes[i], axis=1)
            parent[i] = np.argmin(steps + 0.4 * length[:i])
            length[i] = length[parent[i]] + steps[parent[i]]
        flow = np.ones(len(nodes))
        for i in range(len(nodes) - 1, 0, -1):
            flow[parent[i]] += flow[i]
        trees.append(np.column_stack([nodes[parent], nodes, 0.45 * flow ** (1 / 2.3)])[1:])
    return np.concatenate(trees)


def _draw_lesions(body: Anatomy, rng: np.random.Generator) -> list[Lesion]:
    """Draws many small and some large lesions, and an effusion in some patients."""
    kinds = [EFFUSION] if rng.random() < 0.4 else []
    places, sizes = [rng.random()] * len(kinds), [_POOL] * len(kinds)
    for number, size in ((rng.integers(16, 34), _SMALL), (rng.integers(1, 10), _LARGE)):
        kinds += [CONSOLIDATION if odds < 0.3 else GROUND_GLASS for odds in rng.random(number)]
        # Stratified, so that every level between the first and the last has lesions.
        places += list((np.arange(number) + rng.random(number)) / number)
        sizes += [size] * number
    lesions = []
    for label, place, size in zip(kinds, places, sizes, strict=True):
        along, across, axial = rng.uniform(*size)
        angle, depth = rng.uniform(-1.2, 2.4), rng.choice([rng.uniform(0, 6), rng.uniform(6, 40)])
        if label == EFFUSION:
            angle, depth = rng.uniform(1.2, 1.6), 0.0
        z = body.first_z + body.first_lesion + axial + place * (LESION_LENGTH - 2 * axial)
        side, hu = rng.choice((-1, 1)), rng.uniform(*_HU[label])
        lesions.append(Lesion(label, side, angle, depth, z, along, across, axial, hu))
    return lesions


@dataclass(frozen=True, eq=False)
class Section:
    """The shapes of a body at the points of one slice, or at any points."""

    body: Anatomy
    x: Plane
    y: Plane
    z: Plane | np.float32
    pixel: float = 1.0  # mm

    @cached_property
    def level(self) -> Plane | np.float32:
        """0 at the aortic arch, 1 at the domes of the diaphragm."""
        return self.z / CHEST_LENGTH

    @cached_property
    def back(self) -> Plane:
        """-1 at the front of the rib cage, 1 at its back."""
        return self.y / self.body.half_height

    @cached_property
    def cavity(self) -> Plane:
        """Inside of the rib cage: wider at the back and at the base."""
        growth = 0.84 + 0.16 * np.sqrt(np.clip(self.level + 0.1, 0, 1))
        width = growth * self.body.half_width * (1 + 0.12 * np.clip(self.back, -1, 1))
        width = width * (1 + self.body.asymmetry * np.tanh(self.x / 30))
        return ellipse(self.x, self.y, width, growth * self.body.half_height, 2.3)

    @cached_property
    def heart(self) -> Plane:
        size = self.body.heart * np.clip(0.3 + 0.95 * self.level, 0, 1.05)
        x, y = self.x - 20 * size - self.body.heart_shift, self.y + 0.26 * self.body.half_height
        return ellipse(0.88 * x + 0.48 * y, 0.88 * y - 0.48 * x, 70 * size, 52 * size)

    @cached_property
    def aorta(self) -> Plane:
        return radius_of(self.x - 25, self.y - 0.4 * self.body.half_height) - 12

    @cached_property
    def diaphragm(self) -> Plane:
        """Liver and spleen rise as domes into the lungs' bases."""
        rise = self.level - self.body.dome - 0.1 * np.heaviside(self.x, 0)
        radius = 1 + 260 * np.sqrt(np.clip(rise, 0, 1))
        x = np.abs(self.x) - 0.45 * self.body.half_width
        return ellipse(x, self.y + 10, radius, 0.85 * radius)

    @cached_property
    def lungs(self) -> Plane:
        """The cavity without heart, aorta, spine, diaphragm and the space between the lungs."""
        middle = np.abs(self.x - 3) - 7 - 27 * np.exp(-(((self.back + 0.05) / 0.5) ** 2))
        spine = ellipse(self.x, self.y - 0.95 * self.body.half_height, 30, 48)
        lungs = self.cavity + 2
        for shape in (middle, self.heart, self.aorta, spine, self.diaphragm):
            # A smooth maximum rounds the corners.
            lungs = 0.5 * (lungs - shape + np.sqrt((lungs + shape) ** 2 + 100))
        return lungs


def ellipse(x: Plane, y: Plane, a: Any, b: Any, power: float = 2) -> Plane:
    """Distance along the ray from the centre: 0 on the outline, negative inside."""
    if power == 2:
        ratio = radius_of(x / a, y / b)
    else:
        ratio = (np.abs(x / a) ** power + np.abs(y / b) ** power) ** (1 / power)
    return radius_of(x, y) * (1 - 1 / (ratio + 1e-6))


def radius_of(x: Plane, y: Plane) -> Plane:
    """Distance from the origin."""
    return np.sqrt(x * x + y * y)
