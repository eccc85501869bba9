"""Commands for features and networks beyond the final job: extract, score, search, export."""

import argparse
from pathlib import Path
from typing import Any

from sptskm.config import ConfigError, Final, Train
from sptskm.data import read_dataset
from sptskm.training.allocation import enter_step
from sptskm.training.signals import stop_flag


def options(commands: Any) -> None:
    """Add these commands to those of `sptskm`."""
    extract = commands.add_parser("extract", help="embed all tracklets of any data set by a trained run")
    extract.add_argument("run", type=Path)
    extract.add_argument(
        "--data", type=Path, required=True, help="MARS layout, pack or manifest; labels are not needed"
    )
    extract.add_argument("--out", type=Path, required=True, metavar="FEATURES.npz")
    extract.add_argument("--overrides", nargs="*", default=[], metavar="section.key=value")
    extract.set_defaults(command=_extract)

    score = commands.add_parser("score", help="mAP and CMC of features on the test part of any labelled data set")
    score.add_argument("features", type=Path, nargs="+", metavar="FEATURES.npz", help="of one stream, or of each fused")
    score.add_argument("--data", type=Path, required=True)
    score.add_argument("--fusion", type=Path, metavar="RESULTS", help="of `evaluate`: fuse as it did")
    score.add_argument("--protocol", default=Final().protocol, help="name, or a .yaml file (default: %(default)s)")
    score.set_defaults(command=_score)

    search = commands.add_parser("search", help="the nearest tracklets of a gallery of features")
    search.add_argument("--gallery", type=Path, nargs="+", required=True, metavar="FEATURES.npz", help="one a stream")
    search.add_argument(
        "--query", nargs="+", required=True, help="a tracklet of the gallery, or .npz files of features, one a stream"
    )
    search.add_argument("--fusion", type=Path, metavar="RESULTS", help="of `evaluate`: fuse as it did")
    search.add_argument(
        "--weight", type=float, metavar="SMIN", help="fuse by this share of SMIN instead, 0 to 1, fitted on the gallery"
    )
    search.add_argument("--other-cameras", action="store_true", help="leave out the query's own camera")
    search.add_argument("--top", type=int, default=10)
    search.add_argument("--index", action="store_true", help="approximate, by an index that is kept beside the gallery")
    search.add_argument("--data", type=Path, help="the gallery's data set, for names and the picture")
    search.add_argument(
        "--query-data", type=Path, metavar="DATA", help="that of a file as --query, for the picture (default: --data)"
    )
    search.add_argument("--out", type=Path, metavar="PICTURE.png", help="draw the results, with --data")
    search.set_defaults(command=_search)

    export = commands.add_parser("export", help="write trained runs, one a stream, as ONNX")
    export.add_argument("run", type=Path, nargs="+", help="one of each stream")
    export.add_argument(
        "--fusion", type=Path, metavar="RESULTS", help="of `evaluate`: write its fused distance as well"
    )
    export.add_argument("--out", type=Path, required=True, metavar="MODEL.onnx")
    export.set_defaults(command=_export)


def _extract(options: argparse.Namespace) -> None:
    from sptskm.extraction import extract_run

    enter_step()
    with stop_flag() as stop:
        features = extract_run(options.run, options.data, options.out, options.overrides, stop)
    if features is not None:
        without = int((~features.valid_N).sum())
        print(
            f"{options.out}: {len(features)} tracklets" + (f", {without} of them without any input" if without else "")
        )


def _score(options: argparse.Namespace) -> None:
    from sptskm.evaluation.saved import read_fused
    from sptskm.nearest import read_set
    from sptskm.score import score
    from sptskm.training.world import join

    enter_step()
    given = read_set(options.features)
    fused = None if options.fusion is None else read_fused(options.fusion)
    given.check(fused)
    features = [side.features for side in given.values()]
    table, settings = read_dataset(options.data), Final(options.protocol)
    with join(threads=1, timeout_minutes=Train().timeout_minutes) as world:
        results = score(table, settings, features, fused, world)
    if world.is_main:
        print(results.text())


def _search(options: argparse.Namespace) -> None:
    from sptskm.evaluation.saved import read_fused
    from sptskm.nearest import FeatureSet, fit_fused, index_beside, read_set, search
    from sptskm.report.found import check_picture, write_picture

    _check_search(options)
    gallery = read_set(options.gallery)
    query: str | FeatureSet = options.query[0]
    if options.query[0].endswith(".npz"):
        query = read_set([Path(name) for name in options.query])
    fused = None if options.fusion is None else read_fused(options.fusion)
    if options.weight is not None:
        fused = fit_fused(gallery, options.weight)
    names = None if options.data is None else read_dataset(options.data, labelled=False)
    query_names = names if options.query_data is None else read_dataset(options.query_data, labelled=False)
    if options.out is not None and names is not None and query_names is not None:
        asked = query.first if isinstance(query, FeatureSet) else gallery.first
        check_picture(options.out, (names, gallery.first), (query_names, asked))
    index = index_beside(options.gallery, fused) if options.index else None
    found = search(gallery, query, options.top, fused, index, other_cameras=options.other_cameras)
    print(found.text(names))
    if options.out is not None and names is not None:
        write_picture(options.out, found.picture(names, query_names))


def _check_search(options: argparse.Namespace) -> None:
    """Check the options of `sptskm search` before a file is opened. Raises ConfigError."""
    if options.weight is not None and options.fusion is not None:
        raise ConfigError("--weight and --fusion were given, wanted one of them: both say how the streams are fused")
    if options.out is not None and options.data is None:
        raise ConfigError("a picture was asked for by --out, wanted the data set by --data as well")
    if options.query_data is not None and options.out is None:
        raise ConfigError("--query-data was given, wanted a picture by --out as well")
    first, *others = options.query
    if options.query_data is not None and not first.endswith(".npz"):
        raise ConfigError(f"--query-data was given beside {first}, wanted a .npz file as --query")
    if others and not all(name.endswith(".npz") for name in options.query):
        raise ConfigError(f"--query is {' '.join(options.query)}, wanted one tracklet, or a .npz file for each stream")


def _export(options: argparse.Namespace) -> None:
    from sptskm.export import export

    print("\n".join(map(str, export(options.run, options.out, options.fusion))))
