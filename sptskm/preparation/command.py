"""Parse and run `sptskm prepare`. Torch is imported late."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from sptskm.common.processes import end_with
from sptskm.config import ConfigError
from sptskm.data import Tracklets, read_any
from sptskm.data.derived import Made
from sptskm.preparation.work import PrecisionName, prepare_shard, verify_results

if TYPE_CHECKING:
    from sptskm.preparation.layouts import PointLayout

PUBLISHED = {
    "jppnet": "the LIP_JPPNet project publishes its checkpoint as model.ckpt-205632: give --weights PREFIX",
    "posehg3d": "the pytorch-pose-hg-3d project publishes them as fusion_3d_var.pth: give --weights FILE",
}
Engine = Literal["opencv", "litert"]
MethodName = Literal["blazepose", "jppnet", "posehg3d", "grabcut"]
MAKES: dict[MethodName, tuple[Made, ...]] = {
    "blazepose": ("masks", "skeletons"),
    "jppnet": ("masks",),
    "posehg3d": ("skeletons",),
    "grabcut": ("masks",),
}
KINDS: dict[str, tuple[Made, ...]] = {"masks": ("masks",), "skeletons": ("skeletons",), "both": ("masks", "skeletons")}
ON = "cpu, cuda:1, ... (default: a GPU, each shard the next one, or the CPU where there is none)"


@dataclass(frozen=True)
class Wanted:
    """Order of work: what to make, from which frames and by which method."""

    kinds: tuple[Made, ...]
    data: Path
    method: MethodName = "blazepose"
    weights: Path | None = None
    """Weights of JPPNet or pose-hg-3d; BlazePose's are in the cache."""
    fast: bool = False
    flip: bool = False
    engine: Engine = "opencv"
    shards: int = 1
    device: str = ""
    """Empty: a GPU (each shard takes the next one), or the CPU if there is none."""
    precision: PrecisionName = "auto"

    @property
    def name(self) -> str:
        """Return the kinds to make, in words."""
        return " and ".join(self.kinds)


def made(wanted: Wanted, shard: int) -> str:
    """Make the missing results of a shard, and report the counts."""
    from sptskm.preparation.methods import method_of

    outcome = prepare_shard(wanted.data, read_any(wanted.data), method_of(wanted, shard), shard, wanted.shards)
    return outcome.text(f"{wanted.name} made")


def method_named(kinds: tuple[Made, ...], method: MethodName | None, weights: Path | None) -> MethodName:
    """Return the method of a command line: the named one, else the one whose weights are given, else BlazePose.

    Raises ConfigError if the method does not make these kinds, or weights are missing or given without need.
    """
    name = method
    if name is None and weights is not None:
        if len(kinds) > 1:
            raise ConfigError("--weights are of one network, wanted `prepare masks` or `prepare skeletons` with them")
        name = "jppnet" if kinds == ("masks",) else "posehg3d"
    name = name or "blazepose"
    if not set(kinds) <= set(MAKES[name]):
        makers = " or ".join(method for method, makes in MAKES.items() if set(kinds) <= set(makes))
        raise ConfigError(f"{name} makes {MAKES[name][0]} alone, wanted {makers} for {' and '.join(kinds)}")
    if weights is not None and name in ("blazepose", "grabcut"):
        more = "; `sptskm weights blazepose --from FILE` puts its file into the cache" if name == "blazepose" else ""
        raise ConfigError(f"--weights was given with {name}, which takes none{more}")
    if weights is None and name in PUBLISHED:
        raise ConfigError(f"{name} is a network whose --weights are missing; {PUBLISHED[name]}")
    return name


def wanted_of(kinds: tuple[Made, ...], chosen: argparse.Namespace) -> Wanted:
    """Convert the options of `common_options`, except the device. Raises ConfigError."""
    return Wanted(
        kinds,
        chosen.data,
        method_named(kinds, chosen.method, chosen.weights),
        chosen.weights,
        fast=chosen.fast,
        flip=chosen.flip,
        engine=chosen.engine,
        shards=chosen.shards,
        precision=chosen.precision,
    )


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all commands share that make masks and skeletons."""
    parser.add_argument("--data", type=Path, help="folder in the MARS layout, or manifest")
    parser.add_argument(
        "--method",
        choices=get_args(MethodName),
        help="network or algorithm (default: blazepose; with --weights the published network)",
    )
    _computing_options(parser)
    parser.add_argument("--weights", type=Path, help="LIP_JPPNet's checkpoint, or pose-hg-3d's file")
    parser.add_argument("--fast", action="store_true", help="jppnet: one scale, no mirror image, a sixth of the work")
    parser.add_argument("--flip", action="store_true", help="posehg3d: averaged with the mirror image, twice the work")


def _computing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=get_args(Engine),
        default="opencv",
        help="what runs BlazePose; litert (pip install 'sptskm[fast]') is about twice as fast",
    )
    said = "number format of the network (default: auto, float16 for JPPNet on a GPU and else float32)"
    parser.add_argument("--precision", choices=get_args(PrecisionName), default="auto", help=said)
    parser.add_argument("--shards", type=int, default=1, help="processes, each on one CPU thread (default: 1)")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `sptskm prepare`; without a subcommand it makes both masks and skeletons."""
    _options_of(parser)
    parser.set_defaults(source=None, kind=None, invert=False, layout=None, channels=None)
    kinds = parser.add_subparsers(dest="made", metavar="masks | skeletons | video | points")
    for made in ("masks", "skeletons"):
        own = kinds.add_parser(made, help=f"{made} alone of a data set's frames, or what is missing of them")
        _options_of(own)
        _import_options(own)
    _video_options(kinds.add_parser("video", help="tracklets of one's own footage, and a manifest"))
    _point_options(kinds.add_parser("points", help="skeletons of key points that have no frames, and a manifest"))


def _point_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="table whose column skeleton names files of key points")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set that this becomes")
    _layout_options(parser)
    parser.add_argument("--test-share", type=float, help="of the identities, to test on (default: the table's split)")
    parser.add_argument("--seed", type=int, default=0, help="which identities and queries (default: 0)")


def _video_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set that this becomes")
    parser.add_argument("--boxes", type=Path, help="MOT text or yolo's folder of one video (default: NAME.txt)")
    parser.add_argument("--min-frames", type=int, default=8, help="shortest track that is taken (default: 8)")
    parser.add_argument("--every", type=int, default=1, help="take each so-manieth frame (default: 1)")
    parser.add_argument(
        "--method", choices=("blazepose", "grabcut"), help="make masks and skeletons, or masks alone, right away"
    )
    _computing_options(parser)
    parser.add_argument("--device", default="", help=ON)


def _options_of(parser: argparse.ArgumentParser) -> None:
    common_options(parser)
    parser.add_argument("--shard", type=int, help="do only one of them, from 0, as in a job of an array")
    parser.add_argument("--device", default="", help=ON)
    parser.add_argument("--verify", action="store_true", help="only list what is missing, and why")


def _import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", type=Path, dest="source", metavar="PLACE", help="import what is there already")
    parser.add_argument("--kind", choices=("labels", "colours", "binary", "silhouette"), help="what imported masks are")
    parser.add_argument("--invert", action="store_true", help="imported masks are light where nobody is")
    _layout_options(parser)


def _layout_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layout", help="imported key points: 14, mpii-16, coco-17, openpose-25, ..., OWN.yaml")
    parser.add_argument(
        "--channels", help="their numbers: xy, xyc, xyz or xyzc (default: xyc; layouts in space must say it)"
    )


def run(chosen: argparse.Namespace) -> tuple[bool, str]:
    """Make, import or verify; return whether the data set is complete, and the text to print."""
    if chosen.made == "video":
        return _from_videos(chosen)
    if chosen.made == "points":
        return True, _from_points(chosen)
    if chosen.data is None:
        raise ConfigError("--data is missing, wanted the folder of a data set in the MARS layout, or a manifest")
    kinds = KINDS[chosen.made or "both"]
    if chosen.verify:
        return verify_all(kinds, chosen.data, compare=True)
    if chosen.source:
        return _and_verify([_import(chosen, read_any(chosen.data))], kinds, chosen.data)
    wanted = replace(wanted_of(kinds, chosen), device=chosen.device)
    if chosen.shard is not None:
        return True, made(wanted, chosen.shard)
    return _and_verify(make_all(wanted), kinds, chosen.data)


def make_all(wanted: Wanted) -> list[str]:
    """Make all shards, in parallel processes if there are several; return the texts to print, if any."""
    if wanted.shards > 1:
        _side_by_side(wanted)
        return []
    return [made(wanted, 0)]


def verify_all(kinds: Sequence[Made], data: Path, compare: bool = False) -> tuple[bool, str]:
    """Verify each kind as `work.verify_results` does."""
    found = [verify_results(data, read_any(data), kind, compare) for kind in kinds]
    return all(complete for complete, _ in found), "\n".join(text for _, text in found)


def _and_verify(said: list[str], kinds: Sequence[Made], data: Path) -> tuple[bool, str]:
    complete, text = verify_all(kinds, data)
    return complete, "\n".join([*said, text])


def _from_videos(chosen: argparse.Namespace) -> tuple[bool, str]:
    from sptskm.preparation.video import Cut, prepare_videos

    data, text = prepare_videos(chosen.videos, chosen.out, chosen.boxes, Cut(chosen.min_frames, chosen.every))
    if chosen.method is None:
        return True, f"{text}\n`sptskm prepare --data {data}` makes masks and skeletons"
    kinds = MAKES[chosen.method]
    wanted = replace(wanted_of(kinds, chosen), data=data, device=chosen.device)
    complete, said = _and_verify(make_all(wanted), kinds, data)
    return complete, f"{text}\n{said}"


def _import(chosen: argparse.Namespace, table: Tracklets) -> str:
    from sptskm.preparation.importing import ImportSource, import_files

    source = ImportSource(chosen.source, chosen.kind, chosen.invert, _layout(chosen.layout), chosen.channels)
    return import_files(chosen.data, table, chosen.made, source).text(f"{chosen.made} imported")


def _layout(given: str | None) -> "PointLayout | None":
    """Return a custom layout read from its file, or the name as given."""
    from sptskm.preparation.layouts import read_layout

    if given is None or not given.lower().endswith((".yaml", ".yml")):
        return cast("PointLayout | None", given)  # the source checks the name
    return read_layout(Path(given))


def _from_points(chosen: argparse.Namespace) -> str:
    from sptskm.preparation.importing import ImportSource
    from sptskm.preparation.points import prepare_points

    source = ImportSource(chosen.manifest, layout=_layout(chosen.layout), channels=chosen.channels)
    return prepare_points(chosen.manifest, chosen.out, source, chosen.test_share, chosen.seed)[1]


def _side_by_side(wanted: Wanted) -> None:
    """Make all shards in parallel processes, which end with this one; results made so far are kept."""
    word = [] if len(wanted.kinds) > 1 else [wanted.kinds[0]]
    command = [sys.executable, "-m", "sptskm.cli", "prepare", *word, "--data", str(wanted.data)]
    command += ["--method", wanted.method, "--engine", wanted.engine, "--shards", str(wanted.shards)]
    command += ["--device", wanted.device, "--precision", wanted.precision]
    command += ["--weights", str(wanted.weights)] if wanted.weights else []
    command += [f"--{flag}" for flag in ("fast", "flip") if getattr(wanted, flag)]
    ended = partial(end_with, os.getpid(), signal.SIGTERM)  # no shard survives this process
    shards = [subprocess.Popen([*command, "--shard", str(n)], preexec_fn=ended) for n in range(wanted.shards)]
    try:
        ends = [shard.wait() for shard in shards]
    finally:
        for shard in shards:
            shard.terminate()
    if any(ends):
        raise ConfigError(f"{sum(map(bool, ends))} of {len(ends)} shards have failed; the same command continues")
