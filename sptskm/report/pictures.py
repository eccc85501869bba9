"""Pictures of a report, each with a caption that says how to read it.

Legend: Q queries, G gallery rows, N pairs of one kind.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import permutations
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from sptskm.config import STREAMS
from sptskm.evaluation import OFFICIAL, camera_pairs, not_ranked
from sptskm.evaluation.results import Ranking, Results, pluralize, title_of
from sptskm.report import charts
from sptskm.report.colours import MADE
from sptskm.report.insight_pictures import attention_sheet, joint_figure
from sptskm.report.ranked import ranked_grid
from sptskm.report.selection import disputed, ranked, typical
from sptskm.report.strips import Floats
from sptskm.report.style import Draw, Image, pixels, vectors

QUERIES_MEASURED: Final = 400  # whose distances a histogram counts, chosen evenly


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its name in TensorBoard, its section of the report and its caption."""

    name: str
    section: str
    draw: Draw
    caption: str

    @cached_property
    def image(self) -> Image:
        """Return its pixels (H, W, 3)."""
        return pixels(self.draw)

    @cached_property
    def png(self) -> bytes:
        """Return the picture as a PNG file; it is cached, as it may be needed twice."""
        return cv2.imencode(".png", self.image[..., ::-1])[1].tobytes()

    @property
    def is_chart(self) -> bool:
        """Return whether it shows numbers rather than frames."""
        return self.section not in ("ranked", "disputed") and self.name != "attention"

    @property
    def webp(self) -> bytes:
        """Return the picture as a small WebP file: charts without loss, frames at a quality that hides it."""
        quality = 101 if self.is_chart else 75  # above 100: without loss
        return cv2.imencode(".webp", self.image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()

    @property
    def for_board(self) -> bytes:
        """Return the picture for TensorBoard, which knows no WebP: charts as a PNG file, frames as a JPEG file."""
        return self.png if self.is_chart else cv2.imencode(".jpg", self.image[..., ::-1])[1].tobytes()

    @property
    def paper(self) -> dict[str, bytes]:
        """Return the picture as files for a paper by their ending, "pdf" and "svg"."""
        return vectors(self.draw)

    @property
    def file(self) -> str:
        """Return the name of its files, without an ending."""
        return file_of(self.name)

    @property
    def tag(self) -> str:
        """Return the tag in TensorBoard, which groups pictures by what stands before the slash: "ranked/best"."""
        kinds = ("ranked results", "camera pairs", "distances", "training")
        kind = next((kind for kind in kinds if self.name.startswith(kind)), "")
        return f"{self.section}/{self.name.removeprefix(kind).strip()}"


def file_of(picture: str) -> str:
    """Return the name of the files of a picture, without an ending."""
    return picture.replace(" ", "-")


def possible() -> list[str]:
    """Return the names of all pictures that an evaluation of any streams may have."""
    rankings, streams = [title_of(ranking) for ranking in (*STREAMS, *MADE)], [title_of(stream) for stream in STREAMS]
    whose = [*(f"{right} not {wrong}" for right, wrong in permutations(streams, 2)), "best", "median", "worst"]
    return [
        *("CMC", "fusion weight", "attention", "joints"),
        *(f"training {stream}" for stream in streams),
        *(f"ranked results {which}" for which in whose),
        *(f"{what} {ranking}" for what in ("camera pairs", "distances") for ranking in rankings),
    ]


def pictures(results: Results) -> list[Picture]:
    """Return all pictures that these results allow; each is drawn when it is asked for."""
    makers = (_curves, _ranked, _disputed, _cameras, _distances, _insight, _training)
    return [picture for maker in makers for picture in maker(results)]


def _curves(results: Results) -> Iterator[Picture]:
    title = f"{results.test.protocol.name}, {pluralize(results.rankings[-1].scores.num_queries, 'query', 'queries')}"
    draw = partial(charts.cmc_figure, {r.name: r.scores.cmc for r in results.rankings}, title)
    yield Picture("CMC", "results", draw, "How many queries have a right tracklet among their first k results.")
    fusion = results.fusion
    if fusion is not None and fusion.curve_WS is not None and fusion.weight is not None:
        heading = "mAP over the fusion weight, identities held out of training"
        pair = [*fusion.weights]
        draw = partial(charts.weight_figure, fusion.curve_WS, fusion.weight, heading, pair)
        caption = (
            f"The weight is the share of {title_of(pair[1])} in the fused distance. The curve is of identities held "
            "out of training, not of the test set. The chosen weight goes by how far apart the streams put different "
            "people, not by the top of the curve, which is partly luck."
        )
        yield Picture("fusion weight", "results", draw, caption)


def _ranked(results: Results) -> Iterator[Picture]:
    ranking = results.plain
    captions = {
        "best": "Queries with the highest average precision.",
        "median": "Queries from the middle of the list: what to expect of a typical one.",
        "worst": "Queries with the lowest average precision: look here for wrong labels, bad masks and bad skeletons.",
    }
    for kind, chosen in typical(ranking, results.test.query.pids).items():
        rows = [ranked(results, ranking, q) for q in chosen]
        title = f"{title_of(ranking.name)}, {results.test.protocol.name}: {kind} queries"
        draw = partial(ranked_grid, results.table, rows, title)
        yield Picture(f"ranked results {kind}", "ranked", draw, captions[kind])


def _disputed(results: Results) -> Iterator[Picture]:
    """Draw queries that one stream gets right and another does not."""
    for right, wrong in permutations(results.rankings[: len(results.test.features)], 2):
        names = title_of(right.name), title_of(wrong.name)
        chosen = disputed(right, wrong)
        rows = [ranked(results, ranking, q) for q in chosen for ranking in (right, wrong)]
        if rows:
            title = f"Queries that {names[0]} gets right and {names[1]} does not"
            draw = partial(ranked_grid, results.table, rows, title)
            caption = f"Each query twice: as {names[0]} ranks (its first result is right), and as {names[1]} does."
            yield Picture(f"ranked results {names[0]} not {names[1]}", "disputed", draw, caption)


def _plain_first(results: Results) -> list[Ranking]:
    """Return the plain ranking first, then the others in reverse order."""
    return [results.plain, *(ranking for ranking in reversed(results.rankings) if ranking is not results.plain)]


def _cameras(results: Results) -> Iterator[Picture]:
    # the only protocol for which camera pairs are defined
    if results.test.protocol != OFFICIAL or len(np.unique(results.test.gallery.camids)) < 2:
        return
    for ranking in _plain_first(results):
        pairs = camera_pairs(ranking.distance_QG, results.test.query, results.test.gallery)
        mAP, rank1 = pairs.summary()
        title = f"{title_of(ranking.name)}: from camera to camera"
        names = [results.camera_names[camera] for camera in pairs.cameras_C.tolist()]
        draw = partial(charts.camera_figure, pairs, names, title)
        caption = (
            f"As the official MARS code counts them, which is stricter than the table above: mean over pairs of two "
            f"different cameras mAP {100 * mAP:.1f} %, rank-1 {100 * rank1:.1f} %. A dash: no query has such a pair."
        )
        yield Picture(f"camera pairs {title_of(ranking.name)}", "cameras", draw, caption)


def _distances(results: Results) -> Iterator[Picture]:
    for ranking in _plain_first(results):
        same, different = pair_distances(results, ranking)
        if not same.size or not different.size:
            continue
        title = f"{title_of(ranking.name)}: distances of pairs"
        draw = partial(charts.distance_figure, same, different, title)
        nearer = float((different < np.median(same)).mean())
        caption = (
            f"{len(same)} pairs of the same person (other cameras or, by the protocol, other clothes) and "
            f"{len(different)} of different persons. Of the latter {100 * nearer:.1f} % are nearer than half of the "
            "former. The less the two overlap, the better."
        )
        if min(same.min(), different.min()) < 0:
            caption += " A sum of z-scores has no unit and may be negative: only the order of its values counts."
        yield Picture(f"distances {title_of(ranking.name)}", "distances", draw, caption)


def pair_distances(results: Results, ranking: Ranking) -> tuple[Floats, Floats]:
    """Return the distances (N,) of ranked pairs of the same identity and of different ones.

    Only evenly chosen queries are measured, QUERIES_MEASURED at most.
    """
    same, different = [], []
    total = len(results.test.query)
    for q in np.unique(np.linspace(0, total - 1, min(total, QUERIES_MEASURED)).round().astype(int)).tolist():
        counted_G = ~not_ranked(results.test.query, q, results.test.gallery, results.test.protocol)
        counted_G &= np.isfinite(ranking.distance_QG[q])
        own_G = results.test.gallery.pids == results.test.query.pids[q]
        same.append(ranking.distance_QG[q, counted_G & own_G])
        different.append(ranking.distance_QG[q, counted_G & ~own_G])
    return np.concatenate(same or [np.zeros(0)]), np.concatenate(different or [np.zeros(0)])


def _insight(results: Results) -> Iterator[Picture]:
    found = results.insight
    if found.attention:
        one = found.attention[0]
        rows, columns = one.attention_Thw.shape[1:]
        caption = (
            "Frames of test tracklets as SSIN sees them, and where the first of its three attentions, the finest, lies "
            f"over each: averaged over channels, bright where it is strong, from a map of {rows} x {columns}. What is "
            f"attended to joins the image features with the factor {one.strength:.2g}, which was learnt: the nearer to "
            "0, the less it counts."
        )
        yield Picture("attention", "insight", partial(attention_sheet, found.attention), caption)
    if found.joints is not None:
        caption = (
            f"By occlusion: in {found.joints.tracklets} test tracklets one joint after the other is put to the "
            "origin of the coordinates in all frames, and it is measured how much farther the other tracklets of the "
            "same person become. Lines: standard error."
        )
        yield Picture("joints", "insight", partial(joint_figure, found.joints), caption)


def _training(results: Results) -> Iterator[Picture]:
    for config in results.configs:
        curves, stream = charts.read_curves(Path(config.run)), config.stream
        if any(tag.startswith("loss/") for tag in curves):
            caption = f"As logged in {config.run}."
            if any(tag.startswith("validation/") for tag in curves):
                caption += " Scores of identities held out of training cannot be compared with those of the test set."
            draw = partial(charts.training_figure, curves, stream)
            yield Picture(f"training {title_of(stream)}", "training", draw, caption)
