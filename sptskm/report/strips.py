"""Building blocks of the pictures: a canvas with crisp text, frames, mask outlines and skeletons.

Positions and sizes are in pixels, from the upper left corner.
Shapes: H rows, W columns, K skeletons, V = 14 joints with x (right), y (down), z (away) and confidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sptskm.data import Tracklets
from sptskm.data.files import read_frame, read_mask, read_or_none, read_skeletons
from sptskm.data.skeletons import EDGES, JOINTS
from sptskm.report.colours import (
    INK,
    LEFT_LIMBS,
    LINE,
    OUTLINE,
    PALE,
    RIGHT_LIMBS,
    SOFT,
    TRUNK,
    WHITE,
    Colour,
    hexadecimal,
)
from sptskm.report.photograph import Photograph
from sptskm.report.style import DPI, PAGE, Image, in_paper, pixels, text_width

Floats = NDArray[np.floating[Any]]

FRAMES_SHOWN: Final = 3  # of a tracklet in a strip
FRAME: Final = (48, 96)  # width and height in which they are shown there
MARGIN: Final = 12  # around skeletons in a box

_FINER = 4  # skeletons are drawn so many times larger and shrunk, since cv2's small circles are diamonds
_RIGHT_HIP, _LEFT_HIP = JOINTS.index("right hip"), JOINTS.index("left hip")
_FULL_SIZE = 170  # height of a box in which joints and bones have their full thickness
_FADE = 0.6
_TITLE_HEIGHT = 26


class Box(NamedTuple):
    """A rectangle."""

    x: int
    y: int
    width: int
    height: int

    def within(self, margin: int) -> "Box":
        """Return the rectangle without a border."""
        return Box(self.x + margin, self.y + margin, self.width - 2 * margin, self.height - 2 * margin)

    @property
    def middle(self) -> tuple[float, float]:
        """Return x and y of the centre."""
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True)
class _Text:
    x: float
    y: float
    words: str
    size: float
    colour: Colour
    align: str


class Canvas:
    """A white picture to draw on, with a title or none; matplotlib draws the text at the end, on top of everything."""

    def __init__(self, height: int, width: int, title: str = "") -> None:
        self.pixels: Image = np.full((height, width, 3), 255, np.uint8)
        self._title = title
        self._texts: list[_Text] = []

    def paste(self, image: Image, x: int, y: int) -> None:
        """Paste an image (H, W, 3) with its upper left corner at x, y."""
        self.pixels[y : y + image.shape[0], x : x + image.shape[1]] = image

    def fill(self, box: Box, colour: Colour) -> None:
        """Fill a rectangle."""
        self.pixels[box.y : box.y + box.height, box.x : box.x + box.width] = colour

    def frame(self, box: Box, colour: Colour, thickness: int = 1) -> None:
        """Draw a border inside the edges of a rectangle."""
        x, y, width, height = box.within(thickness)
        inside = self.pixels[y : y + height, x : x + width].copy()
        self.fill(box, colour)
        self.paste(inside, x, y)

    def text(self, x: float, y: float, words: str, size: float = 12, colour: Colour = INK, align: str = "left") -> None:
        """Add words, vertically centred at y; `size` is the height of the font."""
        self._texts.append(_Text(x, y, words, size, colour, align))

    def figure(self) -> Figure:
        """Return the picture with its text as a figure; in a paper it is as wide as the page and has no title."""
        top = _TITLE_HEIGHT if in_paper() else 0
        pixels = self.pixels[top:]
        height, width = pixels.shape[:2]
        dpi = width / PAGE if in_paper() else DPI
        figure = Figure((width / dpi, height / dpi), dpi=dpi)
        figure.set_layout_engine("none")
        figure.add_artist(Photograph(pixels))
        title = [] if in_paper() else [_Text(14, 18, self._title, 15, INK, "left")]
        for text in [*title, *self._texts]:
            figure.text(
                text.x / width,
                1 - (text.y - top) / height,
                text.words,
                fontsize=text.size * 72 / dpi,
                color=hexadecimal(text.colour),
                ha=text.align,
                va="center_baseline",
            )
        return figure

    def picture(self) -> Image:
        """Return the picture (H, W, 3) with its text."""
        return pixels(self.figure)


def fitted(image: Image, height: int, width: int) -> Image:
    """Resize an image smoothly to a larger or smaller size."""
    how = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)


def outlined(image: Image, mask_HW: Floats) -> Image:
    """Draw the outline of a mask (in 0..1, any size) over an image, one pixel wide."""
    height, width = image.shape[:2]
    smooth = np.asarray(cv2.resize(mask_HW.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))
    contours, _ = cv2.findContours((smooth > 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    drawn = np.ascontiguousarray(image)
    cv2.drawContours(drawn, contours, -1, OUTLINE, 1, cv2.LINE_AA)
    return drawn


def usable(skeletons: Floats) -> NDArray[np.bool_]:
    """Return which skeletons (..., V, 4) can be drawn: all values finite, and not all joints in one place."""
    finite = np.isfinite(skeletons).all(axis=(-2, -1))
    spread = np.nan_to_num(np.ptp(skeletons[..., :3], axis=-2)).any(axis=-1)
    return np.asarray(finite & spread)


class Views:
    """Draws skeletons into boxes of one size at one scale, from the front and, fainter, from the side.

    Every skeleton is centred at its hips. The side view shows the person's right side: a person who faces -z, as in
    normalised skeletons, walks to the right of the picture.
    """

    def __init__(self, skeletons_KV4: Floats, width: int, height: int, margin: int = MARGIN) -> None:
        self._size = float(np.clip(height / _FULL_SIZE, 0.6, 1))
        low, high = _flattened(skeletons_KV4).reshape(-1, 3).min(axis=0), _flattened(skeletons_KV4).max(axis=(0, 1))
        across = high[0] - low[0] + high[2] - low[2]
        self._scale = min((width - 3 * margin) / max(across, 1e-9), (height - 2 * margin) / max(high[1] - low[1], 1e-9))
        gap = (width - across * self._scale) / 3
        front = gap - low[0] * self._scale
        side = width - gap - high[2] * self._scale
        self._places = (front, side)
        self._middle = height / 2 - (low[1] + high[1]) / 2 * self._scale

    def draw(self, canvas: Canvas, box: Box, skeleton_V4: Floats) -> None:
        """Draw one of the skeletons in a box."""
        part = canvas.pixels[box.y : box.y + box.height, box.x : box.x + box.width]
        large = np.ascontiguousarray(part.repeat(_FINER, axis=0).repeat(_FINER, axis=1))
        x, y, depth = _flattened(skeleton_V4).T * self._scale
        for place, across, fade in ((self._places[1], depth, _FADE), (self._places[0], x, 0.0)):
            points_V2 = _FINER * np.stack([place + across, self._middle + y], axis=1)
            _draw_limbs(large, points_V2, skeleton_V4[:, 3], _FINER * self._size, fade)
        canvas.paste(fitted(large, box.height, box.width), box.x, box.y)


def draw_skeletons(
    canvas: Canvas, boxes: Sequence[Box], skeletons_KV4: Floats, drawn_K: NDArray[np.bool_], margin: int = MARGIN
) -> None:
    """Draw skeletons in framed boxes of one size at one scale; a box whose skeleton is not to be drawn says so."""
    views = Views(skeletons_KV4[drawn_K], boxes[0].width, boxes[0].height, margin) if drawn_K.any() else None
    for box, skeleton_V4, drawn in zip(boxes, skeletons_KV4, drawn_K, strict=True):
        canvas.fill(box, WHITE if drawn else PALE)
        canvas.frame(box, LINE)
        if views is not None and drawn:
            views.draw(canvas, box, skeleton_V4)
        else:
            canvas.text(*box.middle, "no skeleton", 12, SOFT, "center")


def _flattened(skeletons: Floats) -> Floats:
    """Return (..., V, 3): x in the front view, y down, x in the side view; the origin is the middle of the hips."""
    points = np.asarray(skeletons[..., :3], np.float64)
    hips = (points[..., [_RIGHT_HIP], :] + points[..., [_LEFT_HIP], :]) / 2
    return np.asarray((points - hips) * (1, 1, -1))


def _draw_limbs(pixels: Image, points_V2: Floats, confidence_V: Floats, size: float, fade: float) -> None:
    """Draw bones and joints; joints grow with confidence, and `fade` (0..1) mixes the colours with white."""
    ends = [(int(x), int(y)) for x, y in np.rint(points_V2)]
    # the person's left first: in the side view the right limbs are the near ones
    for start, end in sorted(EDGES, key=lambda edge: _colour(*edge) == RIGHT_LIMBS):
        cv2.line(pixels, ends[start], ends[end], _faded(_colour(start, end), fade), round(2 * size), cv2.LINE_AA)
    for joint, confidence in enumerate(np.clip(confidence_V, 0, 1)):
        radius = round(size * (1.2 + 3 * confidence))
        cv2.circle(pixels, ends[joint], radius, _faded(_colour(joint), fade), -1, cv2.LINE_AA)


def _colour(*joints: int) -> Colour:
    names = " ".join(JOINTS[joint] for joint in joints)
    return RIGHT_LIMBS if "right" in names else LEFT_LIMBS if "left" in names else TRUNK


def _faded(colour: Colour, fade: float) -> Colour:
    red, green, blue = (round(part + (255 - part) * fade) for part in colour)
    return red, green, blue


def shortened(name: str, length: int) -> str:
    """Return a name on one line; the middle is left out where it is longer than `length`."""
    words = " ".join(name.split())
    kept = length - 1
    return words if len(words) <= length else f"{words[: kept - kept // 2]}…{words[len(words) - kept // 2 :]}"


def fitting(words: str, size: float, width: float) -> str:
    """Return words with the middle left out where they are wider than `width`."""
    length = len(words)
    while text_width(words, size) > width and length > 1:
        length -= 1
        words = shortened(words, length)
    return words


def spread(length: int, count: int) -> list[int]:
    """Return up to `count` different places in 0..length-1, evenly spaced.

    The distance to both ends is half of the spacing.
    """
    places = (np.arange(count) + 0.5) / count * length
    return sorted({int(place) for place in places})


@dataclass(frozen=True, eq=False)
class Footage:
    """The parts of a tracklet that can be shown: frames with mask outlines, and a skeleton (V, 4)."""

    images: list[Image]
    skeleton_V4: Floats | None


def read_footage(table: Tracklets, row: int) -> Footage:
    """Read three evenly spaced frames and the skeleton nearest to the middle of a tracklet.

    What cannot be read is left out.
    """
    length = int(table.lengths[row])
    images = [frame_of(table, row, frame) for frame in spread(length, FRAMES_SHOWN)]
    return Footage([image for image in images if image is not None], skeleton_of(table, row, length // 2))


def frame_of(table: Tracklets, row: int, frame: int) -> Image | None:
    """Read a frame (H, W, 3) with its mask outline, at the size used in strips; None where it cannot be read."""
    image = read_or_none(read_frame, *table.files(row, [frame], "frames"))
    mask_HW = read_or_none(read_mask, *table.files(row, [frame], "masks"))
    if image is None:
        return None
    # outlines are drawn at the size in which they are seen, or they would vanish or blur
    scale = min(FRAME[0] / image.shape[1], FRAME[1] / image.shape[0])
    image = fitted(image, *(max(1, round(edge * scale)) for edge in image.shape[:2]))
    return image if mask_HW is None else outlined(image, mask_HW / 255)


def skeleton_of(table: Tracklets, row: int, frame: int) -> Floats | None:
    """Read the skeleton (V, 4) of a frame, or the one nearest to it; None where no skeleton can be drawn."""
    for frames in ([frame], range(int(table.lengths[row]))):  # all are read only where they must be
        skeletons_KV4 = read_skeletons(table, row, frames, strict=False)
        found_K = np.flatnonzero(usable(skeletons_KV4))
        if found_K.size:
            nearest = min(found_K.tolist(), key=lambda place: abs(frames[place] - frame))
            return skeletons_KV4[nearest]
    return None


def draw_footage(canvas: Canvas, box: Box, footage: Footage, skeleton_height: int) -> None:
    """Draw the frames side by side above the skeleton; without frames the skeleton alone, with neither a grey box."""
    canvas.fill(box, WHITE if footage.images or footage.skeleton_V4 is not None else LINE)
    floor = box.height - skeleton_height if footage.images else 0
    below = Box(box.x, box.y + floor, box.width, box.height - floor)
    width = box.width // FRAMES_SHOWN
    left = (box.width - width * len(footage.images)) // 2
    for place, image in enumerate(footage.images):
        scale = min(floor / image.shape[0], width / image.shape[1])
        tall, wide = (max(1, int(edge * scale)) for edge in image.shape[:2])
        x = box.x + left + place * width + (width - wide) // 2
        canvas.paste(fitted(image, tall, wide), x, box.y + (floor - tall) // 2)
    if footage.skeleton_V4 is not None:
        Views(footage.skeleton_V4[None], below.width, below.height, 7).draw(canvas, below, footage.skeleton_V4)
    elif below.height or not footage.images:
        canvas.text(*below.middle, "no skeleton" if footage.images else "nothing to show", 10, SOFT, "center")
