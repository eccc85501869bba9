"""Train SSIN and evaluate it: the whole path in a few lines."""

import sys
from pathlib import Path

from sptskm import evaluate, load_config, train


def main(data: Path, out: Path, *overrides: str) -> None:
    """Train on `data` and write everything below `out`; the same call continues a run that was stopped."""
    config = load_config("demo/ssin", f"data.root={data}", f"run={out / 'ssin'}", *overrides)
    train(config)
    results = evaluate([out / "ssin"], out / "final", {"protocol": "mars-official"})
    if results is not None:  # on several ranks, only rank 0 has them
        print(results.text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
