"""What `sptskm prepare` understands and does. No torch before it is needed."""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sptskm.config import ConfigError
from sptskm.data import Tracklets, read_dataset
from sptskm.data.derived import Made
from sptskm.preparation.work import Precision, prepare, verify

ON = "cpu, cuda:1, ... (default: a GPU, each shard the next one, or the CPU where there is none)"


@dataclass(frozen=True)
class Wanted:
    """What is made of which frames, and with what."""

    made: Made
    data: Path
    weights: Path | None
    grabcut: bool
    fast: bool
    flip: bool
    shards: int
    device: str = ""
    """Empty: a GPU, each shard the next one, or the CPU where there is none."""
    precision: Precision = "auto"


def made(wanted: Wanted, shard: int) -> str:
    """Make what is missing of a shard, and say how much that was."""
    from sptskm.preparation.methods import method_of

    outcome = prepare(wanted.data, read_dataset(wanted.data), method_of(wanted, shard), shard, wanted.shards)
    return outcome.text(f"{wanted.made} made")


def common_options(parser: argparse.ArgumentParser) -> None:
    """What is said alike wherever masks and skeletons are made."""
    parser.add_argument("--data", type=Path, required=True, help="folder in the MARS layout, or manifest")
    parser.add_argument("--weights", type=Path, help="LIP_JPPNet's checkpoint, or pose-hg-3d's file")
    parser.add_argument("--grabcut", action="store_true", help="masks without weights, to try the path")
    parser.add_argument("--fast", action="store_true", help="masks: one scale and no mirror image, a sixth of the work")
    parser.add_argument("--flip", action="store_true", help="skeletons: averaged with the mirror image, twice the work")
    _precision_option(parser)


def _precision_option(parser: argparse.ArgumentParser) -> None:
    said = "number format of the network (default: auto, float16 for masks on a GPU and else float32)"
    parser.add_argument("--precision", choices=get_args(Precision), default="auto", help=said)


def options(parser: argparse.ArgumentParser) -> None:
    """What may be typed behind `sptskm prepare`."""
    kinds = parser.add_subparsers(dest="made", required=True, metavar="masks | skeletons | video")
    for made in ("masks", "skeletons"):
        _options_of(kinds.add_parser(made, help=f"{made} of a data set's frames, or what is missing of them"))
    _video_options(kinds.add_parser("video", help="tracklets of one's own footage, and a manifest"))


def _video_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set that this becomes")
    parser.add_argument("--boxes", type=Path, help="MOT text of a single video (default: NAME.txt beside each)")
    parser.add_argument("--min-frames", type=int, default=8, help="shortest track that is taken (default: 8)")
    parser.add_argument("--every", type=int, default=1, help="take each so-manieth frame (default: 1)")
    parser.add_argument("--mask-weights", type=Path, help="LIP_JPPNet's checkpoint: make masks, too")
    parser.add_argument("--grabcut", action="store_true", help="make masks without weights, too")
    parser.add_argument("--skeleton-weights", type=Path, help="pose-hg-3d's file: make skeletons, too")
    parser.add_argument("--device", default="", help=ON)
    _precision_option(parser)


def _options_of(parser: argparse.ArgumentParser) -> None:
    common_options(parser)
    parser.add_argument("--from", type=Path, dest="source", metavar="PLACE", help="import what is there already")
    parser.add_argument("--kind", choices=("labels", "colours", "binary", "silhouette"), help="what imported masks are")
    parser.add_argument("--invert", action="store_true", help="imported masks are light where nobody is")
    parser.add_argument("--layout", help="imported key points: 14, mpii-16, coco-17, openpose-18, openpose-25, ...")
    parser.add_argument(
        "--channels", help="their numbers: xy, xyc, xyz or xyzc (default: xyc; layouts in space must say it)"
    )
    parser.add_argument("--shards", type=int, default=1, help="processes, each on one CPU thread (default: 1)")
    parser.add_argument("--shard", type=int, help="do only one of them, from 0, as in a job of an array")
    parser.add_argument("--device", default="", help=ON)
    parser.add_argument("--verify", action="store_true", help="only list what is missing, and why")


def run(chosen: argparse.Namespace) -> tuple[bool, str]:
    """Make, import or only look: whether what was asked for is complete, and what to say of it."""
    if chosen.made == "video":
        return _from_videos(chosen)
    table, said = read_dataset(chosen.data), []
    if not chosen.verify:
        if chosen.source:
            said.append(_import(chosen, table))
        elif chosen.shard is None and chosen.shards > 1:
            _side_by_side(chosen)
        else:
            flags, where = (chosen.grabcut, chosen.fast, chosen.flip), (chosen.device, chosen.precision)
            wanted = Wanted(chosen.made, chosen.data, chosen.weights, *flags, chosen.shards, *where)
            said.append(made(wanted, chosen.shard or 0))
        if chosen.shard is not None:
            return True, said[0]
    complete, text = verify(chosen.data, table, chosen.made, compare=chosen.verify)
    return complete, "\n".join([*said, text])


def _from_videos(chosen: argparse.Namespace) -> tuple[bool, str]:
    from sptskm.preparation.video import Cut, prepare_videos

    cut = Cut(chosen.min_frames, chosen.every)
    data, text = prepare_videos(chosen.videos, chosen.out, chosen.boxes, cut)
    said, complete = [text], True
    on = {"device": chosen.device, "precision": chosen.precision}
    weights: dict[Made, Path | None] = {"masks": chosen.mask_weights, "skeletons": chosen.skeleton_weights}
    for kind, file in weights.items():
        if file is None and not (kind == "masks" and chosen.grabcut):
            continue
        wanted = Wanted(kind, data, file, chosen.grabcut, fast=False, flip=False, shards=1, **on)
        said.append(made(wanted, 0))
        all_there, text = verify(data, read_dataset(data), kind, compare=False)
        said.append(text)
        complete = complete and all_there
    return complete, "\n".join(said)


def _import(chosen: argparse.Namespace, table: Tracklets) -> str:
    from sptskm.preparation.importing import Source, import_files

    source = Source(chosen.source, chosen.kind, chosen.invert, chosen.layout, chosen.channels)
    return import_files(chosen.data, table, chosen.made, source).text(f"{chosen.made} imported")


def _side_by_side(chosen: argparse.Namespace) -> None:
    """All shards at once, as processes that are ended with this one and lose nothing by it."""
    command = [sys.executable, "-m", "sptskm.cli", "prepare", chosen.made, "--data", str(chosen.data)]
    command += ["--shards", str(chosen.shards), "--device", chosen.device, "--precision", chosen.precision]
    command += ["--weights", str(chosen.weights)] if chosen.weights else []
    command += [f"--{flag}" for flag in ("grabcut", "fast", "flip") if getattr(chosen, flag)]
    shards = [subprocess.Popen([*command, "--shard", str(number)]) for number in range(chosen.shards)]
    try:
        ends = [shard.wait() for shard in shards]
    finally:
        for shard in shards:
            shard.terminate()
    if any(ends):
        raise ConfigError(f"{sum(map(bool, ends))} of {len(ends)} shards have failed; the same command continues")
