"""Figures for papers: fonts and text stay what they are, nothing is cut off, and every picture has its files."""

import base64
import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure
from PIL.PdfParser import PdfParser

from sptskm.data.skeletons import JOINTS
from sptskm.evaluation import CameraPairs
from sptskm.evaluation.insight import Joints
from sptskm.report import style
from sptskm.report.charts import camera_figure, cmc_figure, distance_figure, training_figure, weight_figure
from sptskm.report.insight_pictures import joint_figure
from sptskm.report.photograph import Photograph
from sptskm.report.style import PAGE, PAPER, SCREEN, vectors
from sptskm.report.writing import files

RNG = np.random.default_rng(0)
RANKINGS = ("ssin", "smin", "gait", "fused", "reranked")
POINTS = np.array([[0.0, 700.0], [6.5, 0.1]])
LOSSES = ("total", "identity", "triplet", "global", "image", "mask")
CHARTS: dict[str, Callable[[], Figure]] = {
    "cmc": partial(cmc_figure, {name: RNG.random(20) for name in RANKINGS}, "$title$"),
    "weight": partial(weight_figure, np.array([[0, 0.3], [0.5, 0.6], [1, 0.4]]), 0.5, "title"),
    "cameras": partial(
        camera_figure, CameraPairs(np.arange(12), *RNG.random((2, 12, 12))), ["a name that is long"] * 12, "title"
    ),
    "distances": partial(distance_figure, RNG.random(90), RNG.random(90), "title"),
    "training": partial(
        training_figure, {f"loss/{name}": POINTS for name in LOSSES} | {"validation/mAP": POINTS}, "ssin"
    ),
    "joints": partial(joint_figure, Joints(RNG.random(14), RNG.random(14), 5, RNG.random((len(JOINTS), 4)))),
}


@pytest.mark.parametrize("look", [SCREEN, PAPER], ids=["screen", "paper"])
@pytest.mark.parametrize("name", CHARTS)
def test_no_text_of_a_chart_is_cut_off(name: str, look: dict[str, object]) -> None:
    with style._style(look):
        figure = CHARTS[name]()
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01


def test_a_chart_for_a_paper_has_the_width_of_a_column_embedded_fonts_text_and_no_title() -> None:
    found = vectors(CHARTS["cmc"])
    assert b"/FontFile2" in found["pdf"]
    assert b"/Type3" not in found["pdf"]
    assert b"/MediaBox [ 0 0 244.8 " in found["pdf"]
    svg = found["svg"].decode()
    assert ">rank k</text>" in svg
    assert "title" not in svg.split("</metadata>")[1]
    assert found == vectors(CHARTS["cmc"]), "the same figure is the same file"


def test_every_picture_of_an_evaluation_has_its_files_for_papers(written: Path) -> None:
    pictures = {path.stem for path in written.glob("*.png")}
    for ending in ("pdf", "svg"):
        assert {path.stem for path in written.glob(f"figures/*.{ending}")} == pictures
    assert {str(path.relative_to(written)) for path in written.glob("figures/*")} <= set(files())
    assert all(path.read_bytes().startswith(b"%PDF") for path in written.glob("figures/*.pdf"))
    largest = max(path.stat().st_size for path in written.glob("figures/*"))
    assert largest < 600_000


def test_frames_in_a_paper_are_a_jpeg_as_wide_as_the_page_below_labels_that_stay_text(written: Path) -> None:
    pdf, svg = (written / f"figures/ranked-results-best.{ending}" for ending in ("pdf", "svg"))
    parser = PdfParser(buf=pdf.read_bytes())
    page = parser.read_indirect(parser.pages[0])
    assert page[b"MediaBox"][2] == 72 * PAGE
    (picture,) = parser.read_indirect(parser.read_indirect(page[b"Resources"])[b"XObject"]).values()
    jpeg = parser.read_indirect(picture)
    size = jpeg.dictionary[b"Width"], jpeg.dictionary[b"Height"]
    assert PIL.Image.open(io.BytesIO(jpeg.buf)).size == size
    assert page[b"MediaBox"][3] == pytest.approx(72 * PAGE * size[1] / size[0])
    assert b"/FontFile2" in pdf.read_bytes()
    content = svg.read_text()
    (embedded,) = re.findall(r'"data:image/jpeg;base64,(.*)"', content)
    assert base64.b64decode(embedded) == jpeg.buf
    assert ">mask outline</text>" in content
    assert "best queries" not in content, "the caption says it in a paper"


def test_where_a_matplotlib_writes_pictures_in_another_way_they_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)

    def drawn() -> Figure:
        figure = Figure((4 / 128, 6 / 128))
        figure.add_artist(Photograph(shown))
        return figure

    def other(figure: Figure) -> dict[str, bytes]:
        found = as_today(figure)
        return {**found, "pdf": found["pdf"].replace(b"/Subtype /Image", b"/Subtype/Image")}

    as_today = style._saved
    assert b"/DCTDecode" in vectors(drawn)["pdf"]
    monkeypatch.setattr(style, "_saved", other)
    found = vectors(drawn)
    assert b"/DCTDecode" not in found["pdf"]
    assert re.search(rb"/Width 4\b", found["pdf"])
    (embedded,) = re.findall(rb'"data:image/png;base64,\s*([^"]*)"', found["svg"])
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(embedded)))
    np.testing.assert_array_equal(np.asarray(picture)[::-1, :, :3], shown)  # an SVG turns it over
