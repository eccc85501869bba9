"""Embed your own tracklets by a trained run, and list the nearest ones of some."""

import sys
from pathlib import Path

from sptskm import extract, search


def main(run: Path, data: Path, out: Path) -> None:
    """Write the embeddings of the tracklets of `data` to `out` (.npz), and print the nearest ones of some."""
    features = extract(run, data, out)
    assert features is not None
    print(f"{len(features)} tracklets, {features.features_ND.shape[1]} numbers each")
    for key in features.keys_N[features.valid_N][:20]:
        near = ", ".join(f"{found.tracklet} ({found.distance:.2f})" for found in search(out, key, top=3))
        print(f"{key}: {near}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
