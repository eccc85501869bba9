"""Define and run the command `sptskm import`."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sptskm.data.importers import ccvid, folder, ilidsvid, lsvid, mars, prid2011
from sptskm.data.importers.folder import PATTERN
from sptskm.data.manifest import SPLITS, Entry, as_table, read_entries, write_entries
from sptskm.data.splits import split_by_identity
from sptskm.data.tracklets import Tracklets

LAYOUTS = {
    "mars": "MARS: info, bbox_train, bbox_test",
    "ccvid": "CCVID: train.txt, query.txt, gallery.txt, session1 to session3",
    "lsvid": "LS-VID: info/list_sequence, info/data/info_test.mat",
    "ilidsvid": "iLIDS-VID: i-LIDS-VID/sequences, train-test people splits",
    "prid2011": "PRID 2011: prid_2011/multi_shot, splits_prid2011.json",
    "folder": "a folder of frames for each tracklet, named <pid>/<camera>/<tracklet> or by --pattern",
    "manifest": "another manifest: into another form (.csv, .jsonl, .parquet) or with another split",
}


PATTERN_HELP = (
    f"how paths below ROOT are built (default: {PATTERN}; also {{clothes}}, {{time}}; without {{pid}}, as in "
    "{tracklet}, people are unknown)"
)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sptskm import` to a parser."""
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    for layout, text in LAYOUTS.items():
        own = layouts.add_parser(layout, help=text, description=text)
        own.add_argument("root", type=Path, metavar="FILE" if layout == "manifest" else "ROOT")
        own.add_argument("out", type=Path, nargs="?", metavar="OUT", help=f"(default: {_default(layout)} in ROOT)")
        if layout in ("ilidsvid", "prid2011"):
            own.add_argument("--split", type=int, default=1, help="which of the ten, from 1 (default: 1)")
        if layout == "folder":
            own.add_argument("--pattern", default=PATTERN, help=PATTERN_HELP)
        if layout in ("folder", "manifest"):
            share = 0.5 if layout == "folder" else None
            told = "(default: 0.5)" if share else "(default: the manifest's own split)"
            own.add_argument("--test-share", type=float, default=share, help=f"of the identities, to test on {told}")
            own.add_argument("--seed", type=int, default=0, help="which identities and queries (default: 0)")


def run(chosen: argparse.Namespace) -> str:
    """Write the manifest and return a summary table with the next command to run.

    Nothing is written if anything is wrong. Raises FileNotFoundError, FileExistsError, and DataError or ConfigError as
    the importers do.
    """
    root: Path = chosen.root
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such file or folder")
    home = root.parent if chosen.layout == "manifest" else root
    out: Path = chosen.out or home / _default(chosen.layout)
    if out.exists():
        raise FileExistsError(f"{out}: exists already; name another file behind {root}, or move it away")
    entries = _entries(chosen)
    if out.parent.resolve() != home.resolve():
        entries = [_with_absolute_paths(entry, home.resolve()) for entry in entries]
    table = as_table(out, entries)
    write_entries(out, entries)
    return f"{_summary(entries, table)}\n{out} written; next: sptskm check {out}"


def _default(layout: str) -> str:
    """Return the default name of the manifest; MARS needs JSONL, because lists of frames do not fit into CSV."""
    return "manifest.jsonl" if layout == "mars" else "manifest.csv"


def _entries(chosen: argparse.Namespace) -> Sequence[Entry]:
    root, layout = chosen.root, chosen.layout
    if layout == "manifest":
        entries = read_entries(root, split=chosen.test_share is None)
        return entries if chosen.test_share is None else split_by_identity(entries, chosen.test_share, chosen.seed)
    if layout == "folder":
        entries = folder(root, chosen.pattern)
        labelled = "{pid}" in chosen.pattern
        return split_by_identity(entries, chosen.test_share, chosen.seed) if labelled else entries
    if layout in ("ilidsvid", "prid2011"):
        return {"ilidsvid": ilidsvid, "prid2011": prid2011}[layout](root, chosen.split)
    return {"mars": mars, "ccvid": ccvid, "lsvid": lsvid}[layout](root)


def _with_absolute_paths(entry: Entry, home: Path) -> Entry:
    """Return the entry with absolute paths, for a manifest that does not lie in `home`."""
    frames = entry.frames
    if frames:
        frames = str(home / frames) if isinstance(frames, str) else tuple(str(home / frame) for frame in frames)
    return replace(
        entry,
        frames=frames,
        masks=entry.masks and str(home / entry.masks),
        skeleton=entry.skeleton and str(home / entry.skeleton),
    )


def _summary(entries: Sequence[Entry], table: Tracklets) -> str:
    """Return a table with the numbers of tracklets, identities, cameras and frames of each split."""
    # the table has the training entries first, then the others
    ordered = [e for e in entries if e.split == "train"] + [e for e in entries if e.split != "train"]
    layout = "{:<10} {:>10} {:>10} {:>8} {:>10}"
    lines = [layout.format("split", "tracklets", "identities", "cameras", "frames")]
    for split in (*SPLITS, "all"):
        rows = np.flatnonzero([split in (entry.split, "all") for entry in ordered])
        own = [ordered[row] for row in rows]
        pids, cameras = {entry.pid for entry in own} - {""}, {entry.camera for entry in own}
        if own:
            lines.append(layout.format(split, len(own), len(pids), len(cameras), int(table.lengths[rows].sum())))
    return "\n".join(lines)
