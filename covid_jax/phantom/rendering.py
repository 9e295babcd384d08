"""A slice of a synthetic patient: tissues from the outside in, then blur, motion and noise."""

from functools import partial

import numpy as np
from jaxtyping import Int16, UInt8
from scipy import ndimage

from covid_jax.phantom import anatomy
from covid_jax.phantom.anatomy import LABELS, Patient, Plane, Section, ellipse, radius_of

FIELD_OF_VIEW = 360.0  # mm
SCAN_LENGTH = 100.0  # mm
SLICE_THICKNESS = 5.0  # mm

Mask = UInt8[np.ndarray, "h w"]
Picture = Int16[np.ndarray, "h w"]  # in HU
Layer = tuple[Plane, float]  # a shape and its HU


def cut(body: anatomy.Anatomy, num_slices: int, size: int) -> list[Section]:
    """The slices' grids in the patient's coordinates, from the feet up."""
    pixels = ((np.arange(size) + 0.5) / size - 0.5) * FIELD_OF_VIEW
    x, y = (pixels[None] - body.shift_x) / body.scale, (pixels[:, None] - body.shift_y) / body.scale
    cos, sin = np.cos(body.rotation), np.sin(body.rotation)
    x, y = (cos * x + sin * y).astype(np.float32), (cos * y - sin * x).astype(np.float32)
    depths = SCAN_LENGTH * (np.arange(num_slices)[::-1] + 0.5) / num_slices
    pixel = FIELD_OF_VIEW / size / body.scale
    return [Section(body, x, y, np.float32(body.first_z + depth), pixel) for depth in depths]


def render(patient: Patient, at: Section, rng: np.random.Generator) -> tuple[Picture, Mask]:
    """One slice in HU and its mask."""
    bumps = _noise(patient, at, 10)
    image = np.full_like(at.x, -1000)
    for shape, hu in (*_chest_wall(at, bumps), *_mediastinum(at), *_bones(at)):
        image = _paint(image, _cover(shape, at.pixel), hu)
    tissue, mask = _lung_tissue(patient, at, bumps)
    image = _paint(image, _cover(at.lungs, at.pixel), tissue)
    image = _paint(image, _tubes(_WINDPIPE, at), -960)
    image = ndimage.gaussian_filter(image, 0.6)
    # The heart moves during the scan, which smears its border.
    smeared = ndimage.gaussian_filter(image, 3 / at.pixel)
    image = _paint(image, np.exp(-((at.heart / 5) ** 2)), smeared)
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, np.float32), at.body.kernel)
    image = image + noise * (at.body.noise / noise.std())
    return np.clip(np.round(image), -1024, 3071).astype(np.int16), mask


def _chest_wall(at: Section, bumps: Plane) -> list[Layer]:
    """The table, skin, fat, muscle and the fat planes in it."""
    body = at.body
    # The table stays level when the patient does not.
    back = body.half_height + body.muscle + body.fat + body.table_gap
    table = at.y + at.x * float(np.tan(body.rotation)) + at.x**2 / 900 - back - 4
    skin = at.cavity - body.muscle - body.fat * (1 + 0.25 * np.sin(at.y / 40))
    muscle = at.cavity - body.muscle - 6 * bumps
    planes = 20 * np.maximum(np.abs(bumps - 0.1) - 0.06, np.abs(at.cavity - 14) / 200 - 0.03)
    return [(np.abs(table) - 1.2, -250), (skin, 0), (skin + 2.5, -105), (muscle, 50), (planes, -80)]


def _mediastinum(at: Section) -> list[Layer]:
    """Fat, great vessels and oesophagus, heart, aorta and abdomen."""
    tubes = ((-22, -26, 9), (-4, -30, 14), (16, -18, 13), (2, 22, 7))
    vessels = [(radius_of(at.x - x, at.y - y) - radius, 42) for x, y, radius in tubes]
    abdomen = np.maximum(at.diaphragm, at.cavity + 2)
    return [(at.cavity, -85), *vessels, (at.heart + 4, 42), (at.aorta, 45), (abdomen, 58)]


def _bones(at: Section) -> list[Layer]:
    """Bones with a dense shell and a spongy inside, and the spinal canal."""
    body, radius, angle = at.body, radius_of(at.x, at.y), np.arctan2(at.y, np.abs(at.x))
    y = at.y - 0.68 * body.half_height
    # Ribs slope, so that their cuts move along the wall from slice to slice.
    turn = (angle / 0.62 + at.level * 5 + body.rib_phase + 0.3 * np.heaviside(at.x, 0)) % 1 - 0.5
    ribs = ellipse(0.62 * turn * radius, at.cavity - 6.5, 17, 4)
    bones = {
        "ribs": np.maximum(ribs, 14 - np.abs(at.x)),
        "scapulae": ellipse((angle - 0.75) * radius, at.cavity - 16, 5 + 30 * (1 - at.level), 2.5),
        "sternum": ellipse(at.x, at.y + body.half_height + 5, 17, 6),
        "spinous process": ellipse(at.x, y - 38, 4, 14),
        "transverse processes": ellipse(np.abs(at.x) - 22, y - 20 + np.abs(at.x) / 6, 14, 4),
        "arch": np.abs(ellipse(at.x, y - 22, 13, 10)) - 3,
        "vertebra": ellipse(at.x, y, 19, 16),
    }
    shells = ((0.0, body.bone), (2.5, 0.4 * body.bone))
    layers = [(bone + inset, hu) for bone in bones.values() for inset, hu in shells]
    return [*layers, (ellipse(at.x, y - 22, 9, 7), 30)]


def _lung_tissue(patient: Patient, at: Section, bumps: Plane) -> tuple[Plane, Mask]:
    """Lung tissue with fissure, vessels, airways and lesions at every pixel; the lesion mask."""
    body, texture = at.body, _noise(patient, at, 9)
    image = body.parenchyma + 0.5 * body.dependent * at.back + 45 * texture
    rim = np.exp(np.minimum(at.lungs, 0) / 7) * np.clip(2 * at.back - 0.7, 0, 1)
    fissure = at.y - 18 - 0.25 * np.abs(at.x) + 0.5 * (at.z - 90) + 5 * np.sin(at.x / 15)
    image += body.atelectasis * rim
    image = _paint(image, 0.3 * _cover(np.abs(fissure) - 0.5, at.pixel), -300)
    lesions = {label: _lesions(patient, at, label, bumps) for label in LABELS}
    cover, hu = lesions[anatomy.GROUND_GLASS]
    paving = np.clip(1 - np.abs(_noise(patient, at, 4.5)) / 0.15, 0, 1)
    image = _paint(image, cover, hu + 110 * texture + 130 * paving)
    image = _paint(image, _tubes(patient.vessels, at), 35)
    airways = _airways(patient.vessels)
    image = _paint(image, _tubes(airways[airways[:, 6] > 1.3] + (0, 0, 0, 0, 0, 0, 0.6), at), -150)
    cover, hu = lesions[anatomy.CONSOLIDATION]
    image = _paint(image, cover, hu + 40 * texture)
    # Airways are hardly visible in aerated lung; in dense lung they are air bronchograms.
    image = _paint(image, 0.9 * _tubes(airways, at), -900)
    image = _paint(image, *lesions[anatomy.EFFUSION])
    mask = np.zeros(at.x.shape, np.uint8)
    for label, (cover, _) in lesions.items():
        mask[(cover >= 0.5) & (at.lungs < 0)] = label
    return image, mask


def _lesions(patient: Patient, at: Section, label: int, bumps: Plane) -> tuple[Plane, Plane]:
    """Cover of one label's lesions (one half on the mask's outline) and their HU at each pixel."""
    softness = {anatomy.GROUND_GLASS: 5.0, anatomy.CONSOLIDATION: 2.0}.get(label, at.pixel)
    roughness = 0.1 if label == anatomy.EFFUSION else 0.65
    cover, hu = np.zeros_like(at.x), np.zeros_like(at.x)
    for lesion in patient.lesions:
        height = (at.z - lesion.z) / lesion.axial
        if lesion.label != label or abs(height) > 0.9:
            continue
        lung = (at.lungs < at.pixel) & (lesion.side * at.x > 0)
        x, y = lesion.side * at.x[lung] - 0.55 * at.body.half_width, at.y[lung]
        turn = (np.arctan2(y, x) - lesion.angle + np.pi) % (2 * np.pi) - np.pi
        depth = -2 - at.cavity[lung] - lesion.depth
        blob = radius_of(turn * radius_of(x, y) / lesion.along, depth / lesion.across)
        blob += roughness * bumps[lung] - np.sqrt(1 - height**4)
        part = _cover(blob * min(lesion.along, lesion.across), softness)
        hu[lung] = np.where(part > cover[lung], lesion.hu, hu[lung])
        cover[lung] = np.maximum(part, cover[lung])
    return cover, hu


_WINDPIPE = np.array(
    [(0, 8, -40, 0, 14, 45, 9), (0, 14, 45, -28, 12, 75, 6.5), (0, 14, 45, 30, 12, 78, 6)]
)


def _airways(vessels: anatomy.Segments) -> anatomy.Segments:
    """Bronchi: next to the larger arteries, with radii in proportion."""
    ends, radius = np.split(vessels[vessels[:, 6] > 0.6], [6], axis=1)
    shifted = ends + radius * (1, -1.4, 0, 1, -1.4, 0)
    return np.hstack([shifted, np.maximum(0.75 * radius, 0.8)])


def _tubes(segments: anatomy.Segments, at: Section) -> Plane:
    """Cover of the parts of the tubes within the thickness of the slice."""
    cover = np.zeros_like(at.x)
    slab = at.z + SLICE_THICKNESS * np.array([-0.5, 0.5])
    z = segments[:, [2, 5]]
    corner, neighbour = (complex(at.x[0, i], at.y[0, i]) for i in (0, 1))
    for segment in segments[(z.min(axis=1) < slab[1]) & (z.max(axis=1) > slab[0])]:
        first, last, radius = segment[:3], segment[3:6], segment[6]
        top, bottom = np.clip((slab - first[2]) / (last[2] - first[2] + 1e-9), 0, 1)
        start, way = (first + top * (last - first))[:2], ((bottom - top) * (last - first))[:2]
        # Only the pixels around it; dividing complex numbers undoes the patient's rotation.
        centre = (complex(*(start + way / 2)) - corner) / (neighbour - corner)
        reach = (radius + np.hypot(*way) / 2) / at.pixel + 2
        window = tuple(
            slice(max(int(middle - reach), 0), max(int(middle + reach) + 1, 0))
            for middle in (centre.imag, centre.real)
        )
        x, y = at.x[window] - start[0], at.y[window] - start[1]
        part = np.clip((x * way[0] + y * way[1]) / (way @ way + 1e-9), 0, 1)
        distance = radius_of(x - part * way[0], y - part * way[1]) - radius
        faint = min(1, 2 * radius / at.pixel)
        cover[window] = np.maximum(cover[window], faint * _cover(distance, at.pixel))
    return cover


def _noise(patient: Patient, at: Section, scale: float) -> Plane:
    """Smooth noise of standard deviation about 0.4 and grain ``scale`` mm, in all dimensions."""
    spline = partial(ndimage.map_coordinates, order=2, mode="grid-wrap", prefilter=False)
    rows, columns = np.indices(patient.lattice.shape[1:])
    level = np.full(rows.shape, at.z / scale + scale)
    return spline(spline(patient.lattice, [level, rows, columns]), [at.y / scale, at.x / scale])


def _cover(shape: Plane, softness: float) -> Plane:
    """Share of a pixel inside the shape: 1 to 0 over ``softness`` mm, one half on the outline."""
    return np.clip(0.5 - shape / softness, 0, 1)


def _paint(image: Plane, cover: Plane, hu: Plane | float) -> Plane:
    return image + cover * (hu - image)
