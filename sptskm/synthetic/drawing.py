"""Draw a dressed walker as shaded convex shapes, one per body part, far parts first.

Shapes: F frames, V = 16 points of walkers.pose, C circles; a part is the hull of some circles.
Colours are (blue, green, red); a drawn figure is (height, width, 4) with premultiplied alpha.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.synthetic.walkers import Colour, Floats, Walker

Image = NDArray[np.uint8]
Projection = Callable[[Floats], tuple[Floats, Floats]]

CLOTHS: tuple[Colour, ...] = (
    *((38, 36, 36), (225, 225, 228), (128, 126, 124), (45, 45, 175), (130, 75, 40)),
    *((60, 125, 65), (75, 190, 215), (150, 60, 120), (60, 100, 150), (190, 150, 90)),
)
PATTERNS = ("plain", "plain", "stripes", "band")
TOPS = ("short sleeves", "long sleeves", "long sleeves", "coat")
BOTTOMS = ("trousers", "trousers", "shorts", "skirt")
BAGS = ("none", "none", "backpack", "shoulder bag")

_SUBPIXEL_BITS = 3
_RING = np.stack([f(np.linspace(0, 2 * np.pi, 12, endpoint=False)) for f in (np.cos, np.sin)], 1)
_LIGHT = np.array([-0.22, -0.25])


@dataclass(frozen=True)
class Outfit:
    """The clothes that a person wears for a day."""

    upper: Colour
    lower: Colour
    accent: Colour
    shoes: Colour
    pattern: str
    top: str
    bottom: str
    bag: str
    hat: bool


@dataclass(frozen=True)
class BodyPart:
    """The hull of circles in one colour; a bias in metres moves it back in the drawing order."""

    circles: tuple[str, ...]
    colour: Colour
    bias: float = 0.0
    patterned: bool = False


def draw_outfit(rng: np.random.Generator) -> Outfit:
    """Draw an outfit from the common cloth colours and cuts."""
    upper, lower, accent = (CLOTHS[i] for i in rng.choice(len(CLOTHS), 3, replace=False))
    return Outfit(
        upper=upper,
        lower=lower,
        accent=accent,
        shoes=CLOTHS[rng.integers(3)],
        pattern=str(rng.choice(PATTERNS)),
        top=str(rng.choice(TOPS)),
        bottom=str(rng.choice(BOTTOMS)),
        bag=str(rng.choice(BAGS)),
        hat=bool(rng.random() < 0.15),
    )


def dyed(outfit: Outfit, amount: float, rng: np.random.Generator) -> Outfit:
    """Return the outfit in slightly different shades, as another owner of a similar outfit would wear it."""

    def shade(colour: Colour) -> Colour:
        blue, green, red = np.clip(np.array(colour) + rng.normal(0, amount, 3), 15, 240)
        return float(blue), float(green), float(red)

    return replace(
        outfit,
        upper=shade(outfit.upper),
        lower=shade(outfit.lower),
        accent=shade(outfit.accent),
        shoes=shade(outfit.shoes),
    )


def figures(
    points_FV3: Floats, walker: Walker, outfit: Outfit, project: Projection, size: tuple[int, int]
) -> list[Image]:
    """Draw one picture (height, width, 4) per frame of the walker with the points (F, V, 3) in camera axes.

    `project` maps (F, C, 3) points in metres to (F, C, 2) pixels and (F, C) pixels per metre.
    """
    circles = _circles(points_FV3, walker)
    names = {name: index for index, name in enumerate(circles)}
    centres_FC3 = np.stack([centre for centre, _ in circles.values()], axis=1)
    pixels_FC2, per_metre_FC = project(centres_FC3)
    radii_FC = per_metre_FC * [radius for _, radius in circles.values()]
    parts = _parts(walker, outfit)
    members = [[names[name] for name in part.circles] for part in parts]
    depth_FP = np.stack([centres_FC3[:, m, 2].mean(axis=1) for m in members], axis=1)
    order_FP = np.argsort(-(depth_FP + [part.bias for part in parts]), axis=1)
    rings = _rings(pixels_FC2, radii_FC, 1.0, 0.0), _rings(pixels_FC2, radii_FC, 0.6, 1.0)
    pictures = []
    for frame, order in enumerate(order_FP):
        picture = np.zeros((*size, 4), dtype=np.uint8)
        for index in order:
            shade = 1 - 0.3 * np.clip(depth_FP[frame, index] / 0.35, 0, 1)
            outlines = [_hull(ring[frame, members[index]]) for ring in rings]
            _draw_part(picture, parts[index], outlines, shade, outfit)
        pictures.append(picture)
    return pictures


def _rings(centres_FC2: Floats, radii_FC: Floats, share: float, lit: float) -> Floats:
    """Return twelve points on every circle, shrunk to a share and moved toward the light."""
    radii = radii_FC[..., None, None]
    return centres_FC2[:, :, None] + radii * (share * _RING + lit * _LIGHT)


def _hull(points_CR2: Floats) -> NDArray[np.float32]:
    hull = cv2.convexHull(points_CR2.reshape(-1, 2).astype(np.float32))
    return np.asarray(hull, dtype=np.float32)[:, 0]


def _draw_part(
    picture: Image,
    part: BodyPart,
    outlines: list[NDArray[np.float32]],
    shade: float,
    outfit: Outfit,
) -> None:
    for outline, light in zip(outlines, (0.84, 1.0), strict=True):
        _fill(picture, outline, part.colour, shade * light)
        if part.patterned:
            for band in _bands(outlines[0], outfit.pattern):
                area, inside = cv2.intersectConvexConvex(outline, band)
                if area > 0:
                    _fill(picture, np.asarray(inside, dtype=np.float32)[:, 0], outfit.accent, shade * light)


def _fill(picture: Image, outline: NDArray[np.float32], colour: Colour, light: float) -> None:
    fixed = np.round(outline * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    paint = (*(min(255.0, channel * light) for channel in colour), 255.0)
    cv2.fillConvexPoly(picture, fixed, paint, cv2.LINE_AA, _SUBPIXEL_BITS)


def _bands(outline: NDArray[np.float32], pattern: str) -> list[NDArray[np.float32]]:
    """Return rectangles across the picture in which the torso's pattern shows its second colour."""
    shares = {"stripes": ((0.2, 0.3), (0.42, 0.52), (0.64, 0.74), (0.86, 0.96)), "band": ((0.3, 0.6),)}
    top, bottom = outline[:, 1].min(), outline[:, 1].max()
    left, right = outline[:, 0].min() - 1, outline[:, 0].max() + 1
    rectangles = []
    for start, stop in shares.get(pattern, ()):
        low, high = top + start * (bottom - top), top + stop * (bottom - top)
        corners = [[left, low], [right, low], [right, high], [left, high]]
        rectangles.append(np.array(corners, dtype=np.float32))
    return rectangles


def _circles(points_FV3: Floats, walker: Walker) -> dict[str, tuple[Floats, float]]:
    """Return the centres (F, 3) and radii, in metres, of all circles that form the parts."""
    tall, build = walker.body.stature / 1.7, walker.body.build
    hips = (points_FV3[:, 8] + points_FV3[:, 11]) / 2
    chest = (points_FV3[:, 2] + points_FV3[:, 5]) / 2
    left = points_FV3[:, 5] - points_FV3[:, 2]
    left = left / np.linalg.norm(left, axis=1, keepdims=True)
    up = chest - hips
    up = up / np.linalg.norm(up, axis=1, keepdims=True)
    front = np.cross(left, up)
    circles = _trunk_circles(hips, chest, left, front, tall * (0.4 + 0.6 * build))
    circles |= _head_circles(points_FV3[:, 0], points_FV3[:, 1], front, tall)
    for side, arm, leg, toe in (("right", 2, 8, 14), ("left", 5, 11, 15)):
        shoulder, elbow, wrist = (points_FV3[:, arm + i] for i in range(3))
        hip, knee, ankle = (points_FV3[:, leg + i] for i in range(3))
        circles |= {
            f"{side} shoulder": (shoulder, 0.058 * build),
            f"{side} sleeve": (0.35 * shoulder + 0.65 * elbow, 0.052 * build),
            f"{side} elbow": (elbow, 0.043 * build),
            f"{side} wrist": (wrist, 0.032 * build),
            f"{side} hand": (wrist + 0.25 * (wrist - elbow), 0.042),
            f"{side} hip": (hip, 0.088 * build),
            f"{side} thigh": (0.35 * hip + 0.65 * knee, 0.078 * build),
            f"{side} hem": (0.3 * hip + 0.7 * knee, 0.1 * build),
            f"{side} knee": (knee, 0.06 * build),
            f"{side} calf": (0.65 * knee + 0.35 * ankle, 0.06 * build),
            f"{side} ankle": (ankle, 0.042 * build),
            f"{side} heel": (ankle + 0.035 * (ankle - knee), 0.048),
            f"{side} toe": (points_FV3[:, toe], 0.03),
        }
    widths = {"shoulder", "hip", "thigh", "hem"}
    return {
        name: (centre, radius * (tall if name.split()[-1] in widths else 1.0))
        for name, (centre, radius) in circles.items()
    }


def _trunk_circles(
    hips: Floats, chest: Floats, left: Floats, front: Floats, girth: float
) -> dict[str, tuple[Floats, float]]:
    back = chest * 0.75 + hips * 0.25 - 0.16 * front
    return {
        "chest": (0.75 * chest + 0.25 * hips + 0.01 * front, 0.118 * girth),
        "belly": (0.4 * chest + 0.6 * hips + 0.02 * front, 0.112 * girth),
        "waist": (0.15 * chest + 0.85 * hips, 0.115 * girth),
        "collar": (chest - 0.01 * front, 0.06),
        "pack top": (back + 0.12 * (chest - hips), 0.1),
        "pack bottom": (back - 0.42 * (chest - hips), 0.12),
        "bag": (0.05 * chest + 0.95 * hips + 0.21 * left, 0.1),
        "bag edge": (hips + 0.2 * left + 0.08 * front, 0.09),
    }


def _head_circles(top: Floats, neck: Floats, front: Floats, tall: float) -> dict[str, tuple[Floats, float]]:
    return {
        "throat": (neck, 0.052 * tall),
        "jaw": (0.32 * top + 0.68 * neck + 0.035 * front, 0.062 * tall),
        "brow": (0.6 * top + 0.4 * neck + 0.025 * front, 0.08 * tall),
        "crown": (0.66 * top + 0.34 * neck - 0.015 * front, 0.094 * tall),
        "nape": (0.35 * top + 0.65 * neck - 0.05 * front, 0.055 * tall),
        "mane": (1.15 * neck - 0.15 * top - 0.09 * front, 0.065 * tall),
        "cap": (0.78 * top + 0.22 * neck, 0.096 * tall),
        "brim": (0.74 * top + 0.26 * neck + 0.14 * front, 0.03 * tall),
    }


def _parts(walker: Walker, outfit: Outfit) -> list[BodyPart]:
    skin, trunk = walker.skin, ("right shoulder", "left shoulder", "chest", "belly", "waist")
    hair = ("crown", "nape", "mane") if walker.long_hair else ("crown", "nape")
    parts = [
        BodyPart(trunk, outfit.upper, -0.02, patterned=outfit.pattern != "plain"),
        BodyPart(("right hip", "left hip", "waist"), outfit.lower, 0.03),
        BodyPart(("collar", "throat", "jaw"), skin, 0.02),
        BodyPart(("jaw", "brow"), skin, -0.03),
        BodyPart(hair, walker.hair, -0.02),
    ]
    for side in ("right", "left"):
        parts += _arm_parts(side, skin, outfit) + _leg_parts(side, skin, outfit)
    return parts + _extras(outfit)


def _arm_parts(side: str, skin: Colour, outfit: Outfit) -> list[BodyPart]:
    short = outfit.top == "short sleeves"
    forearm = skin if short else outfit.upper
    parts = [
        BodyPart((f"{side} wrist", f"{side} hand"), skin),
        BodyPart((f"{side} elbow", f"{side} wrist"), forearm, -0.01),
        BodyPart((f"{side} sleeve", f"{side} elbow"), forearm, -0.015),
    ]
    return [*parts, BodyPart((f"{side} shoulder", f"{side} sleeve"), outfit.upper, -0.03)]


def _leg_parts(side: str, skin: Colour, outfit: Outfit) -> list[BodyPart]:
    calf = outfit.lower if outfit.bottom == "trousers" else skin
    parts = [
        BodyPart((f"{side} heel", f"{side} toe"), outfit.shoes, -0.01),
        BodyPart((f"{side} knee", f"{side} calf", f"{side} ankle"), calf),
        BodyPart((f"{side} thigh", f"{side} knee"), calf, -0.005),
    ]
    if outfit.bottom == "skirt" or outfit.top == "coat":
        return parts
    return [*parts, BodyPart((f"{side} hip", f"{side} thigh"), outfit.lower, -0.01)]


def _extras(outfit: Outfit) -> list[BodyPart]:
    hems = ("right hem", "left hem")
    parts = []
    if outfit.bottom == "skirt":
        parts.append(BodyPart(("right hip", "left hip", *hems), outfit.lower, -0.12))
    if outfit.top == "coat":
        parts.append(BodyPart(("waist", "right hip", "left hip", *hems), outfit.upper, -0.13))
    if outfit.bag == "backpack":
        parts.append(BodyPart(("pack top", "pack bottom"), outfit.accent))
    if outfit.bag == "shoulder bag":
        parts.append(BodyPart(("bag", "bag edge"), outfit.accent, -0.08))
    if outfit.hat:
        parts.append(BodyPart(("crown", "cap"), outfit.accent, -0.06))
        parts.append(BodyPart(("cap", "brim"), outfit.accent, -0.07))
    return parts
