"""A picture of pixels below the text of a figure: as it is on a screen, a JPEG in a PDF or SVG."""

import base64
import io
import re
from typing import Any

import numpy as np
import PIL.Image
from matplotlib.artist import Artist
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

QUALITY = 90


class Photograph(Artist):
    """Pixels (H, W, 3) that fill a figure, which has one of them at most.

    On a screen they are not resampled, unlike with `Figure.figimage`. In a PDF or SVG matplotlib would embed them
    without loss, three times as large as a JPEG: it draws a picture of one pixel, which is then exchanged. With
    `lossless`, it draws the pixels there as well.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        super().__init__()
        self.pixels = pixels
        self.lossless = False

    def draw(self, renderer: Any) -> None:
        """Draw the pixels, or the one in their place."""
        context = renderer.new_gc()
        opaque = np.full(self.pixels.shape[:2], 255, np.uint8)
        rgba = np.ascontiguousarray(np.dstack([self.pixels, opaque])[::-1])  # matplotlib counts from below
        if renderer.option_scale_image():  # PDF and SVG
            figure: Any = self.get_figure()
            everywhere = Affine2D().scale(*figure.bbox.size)
            drawn = rgba if self.lossless else np.full((1, 1, 4), 255, np.uint8)
            renderer.draw_image(context, 0, 0, drawn, everywhere)
        else:
            renderer.draw_image(context, 0, 0, rgba)
        context.restore()

    def within(self, files: dict[str, bytes]) -> dict[str, bytes] | None:
        """Return the files "pdf" and "svg" of the figure with the JPEG in the place of the one pixel.

        Returns None where the pixel is not found, as in files of a matplotlib that writes them in another way.
        """
        file = io.BytesIO()
        PIL.Image.fromarray(self.pixels).save(file, "JPEG", quality=QUALITY)
        jpeg, (height, width) = file.getvalue(), self.pixels.shape[:2]
        try:
            return {"pdf": _within_pdf(files["pdf"], jpeg, height, width), "svg": _within_svg(files["svg"], jpeg)}
        except (ValueError, IndexError):  # no such text in them, or several times
            return None


def _within_pdf(pdf: bytes, jpeg: bytes, height: int, width: int) -> bytes:
    """Append the JPEG as a later version of the only picture: an incremental update (ISO 32000-1, 7.5.6).

    Raises ValueError or IndexError for a file without that picture, or without a trailer.
    """
    (number,) = re.findall(rb"(\d+) 0 obj\n<<[^>]*/Subtype /Image", pdf)
    end = pdf[pdf.rindex(b"trailer") :]
    size, root, earlier = (re.findall(key + rb"\s(\d+[ R\d]*)", end)[0] for key in (b"/Size", b"/Root", b"startxref"))
    about = b"/Type /XObject /Subtype /Image /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /DCTDecode"
    size_of = b"/Width %d /Height %d /Length %d" % (width, height, len(jpeg))
    picture = b"%s 0 obj\n<< %s %s >>\nstream\n%s\nendstream\nendobj\n" % (number, about, size_of, jpeg)
    table = b"xref\n0 1\n%010d 65535 f \n%s 1\n%010d 00000 n \n" % (0, number, len(pdf))
    trailer = b"trailer\n<< /Size %s /Root %s /Prev %s >>\n" % (size, root, earlier)
    return pdf + picture + table + trailer + b"startxref\n%d\n%%%%EOF\n" % (len(pdf) + len(picture))


def _within_svg(svg: bytes, jpeg: bytes) -> bytes:
    """Exchange the only picture. Raises ValueError for a file without it."""
    (only,) = re.findall(rb"<image [^>]*>", svg)
    content = base64.b64encode(jpeg)
    everywhere = b'width="100%" height="100%" preserveAspectRatio="none"'
    return svg.replace(only, b'<image %s xlink:href="data:image/jpeg;base64,%s"/>' % (everywhere, content))
