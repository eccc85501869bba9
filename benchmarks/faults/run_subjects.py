"""Define the kinds of files that hold runs and results: settings, checkpoints, weights, features, results."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from faults import binary_mutations as b
from faults import mutations as m
from faults.project import copy
from faults.subjects import Subject
from sptskm.common.errors import DataError
from sptskm.config import STREAMS
from sptskm.configfile import load, load_final, to_dict
from sptskm.evaluation.feature_files import read_features
from sptskm.evaluation.neighbours import Compared
from sptskm.evaluation.protocols import read_protocol
from sptskm.evaluation.saved import read_fused
from sptskm.extraction import load_network
from sptskm.launching.cluster import load_cluster
from sptskm.models.ssin import SSIN
from sptskm.models.tf_checkpoint import open_checkpoint
from sptskm.models.weights import load_pretrained
from sptskm.nearest import Index
from sptskm.preparation.video import Cut, tracklets_of
from sptskm.report.comparison import read_judged, read_results
from sptskm.training.rundir import RunDir
from sptskm.tuning import space

ROOT = Path(__file__).parents[2]


def _text(name: str, text: str) -> Callable[[Path, Path], Path]:
    def prepare(_project: Path, folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return prepare


def _copied(place: str) -> Callable[[Path, Path], Path]:
    return lambda project, folder: copy(project / place, folder / Path(place).name)


def _configuration(path: Path) -> Any:
    return to_dict(load(path))


def _search(path: Path) -> Any:
    searches = space.load_search(path)
    for stream, search in searches.items():
        space.check_search(path, search, STREAMS[stream].defaults)
    return {stream: vars(search) for stream, search in searches.items()}


def _run(names: str) -> Callable[[Path, Path], Path]:
    """Prepare a run folder with the files of a pattern."""

    def prepare(project: Path, folder: Path) -> Path:
        chosen = sorted((project / "smin").glob(names))[-1]
        copy(project / "smin" / "config.yaml", folder / "run" / "config.yaml")
        return copy(chosen, folder / "run" / chosen.name)

    return prepare


def _network(path: Path) -> Any:
    network = load_network(path.parent)
    return to_dict(network.config), network.step, dict(network.model.state_dict())


def _newest(path: Path) -> Any:
    found = RunDir(path.parent).newest()
    if found is None:
        raise DataError(f"{path}: passed over")  # which the log says
    return found[1]


def _wrong_network(found: Any) -> str:
    return _not_finite(found[2])


def _not_finite(weights: Any) -> str:
    broken = [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    return f"{broken[0]} is not finite" if broken else ""


def _weights(_project: Path, folder: Path) -> Path:
    torch.manual_seed(0)
    layers = ["conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4"]
    parts = ((*name.split(".", 1), tensor) for name, tensor in _small_ssin().img_base.state_dict().items())
    torch.save({f"{layers[int(number)]}.{rest}": tensor for number, rest, tensor in parts}, folder / "resnet.pth")
    return folder / "resnet.pth"


def _small_ssin() -> SSIN:
    torch.manual_seed(1)
    return SSIN(3, depths=(1, 1, 1, 1), width=4, embedding_dim=8)


def _pretrained(path: Path) -> Any:
    model = _small_ssin()
    load_pretrained(model, path)
    return dict(model.img_base.state_dict()), dict(model.mask_base.state_dict())


def _wrong_trunks(found: Any) -> str:
    return _not_finite(found[0]) or _not_finite(found[1])


def _tf(ending: str) -> Callable[[Path, Path], Path]:
    def prepare(_project: Path, folder: Path) -> Path:
        sys.path.insert(0, str(ROOT / "tests"))
        from helpers.tf_writer import write_checkpoint

        rng = np.random.default_rng(0)
        variables = {f"block{n}/w": rng.random((3, 3, 4, n + 1)).astype(np.float32) for n in range(6)}
        prefix = write_checkpoint(folder / "model.ckpt-1", {**variables, "step": np.array(7)})
        return Path(f"{prefix}{ending}")

    return prepare


def _tf_values(path: Path) -> Any:
    found = open_checkpoint(path.parent)  # by way of the text file that names it
    return {name: found.read(name) for name in sorted(found.variables)}


def _final(name: str) -> Callable[[Path, Path], Path]:
    def prepare(project: Path, folder: Path) -> Path:
        for file in ("results.json", "queries.csv"):
            copy(project / "final" / file, folder / "final" / file)
        return folder / "final" / name

    return prepare


def _judged(path: Path) -> Any:
    return read_judged(str(path.parent))


def _wrong_results(found: Any) -> str:
    numbers = [line[key] for line in found["results"] for key in line if key == "mAP" or key.startswith("rank-")]
    return "" if all(number is None or 0 <= number <= 1 for number in numbers) else "a score outside of 0 to 1"


def _wrong_fused(found: Any) -> str:
    return "" if all(0 <= weight <= 1 for weight in found.weights.values()) else "a weight outside of 0 to 1"


def _wrong_judged(found: Any) -> str:
    ap_Q = found.ap_Q[~np.isnan(found.ap_Q)]
    return "an average precision outside of 0 to 1" if ((ap_Q < 0) | (ap_Q > 1)).any() else ""


def _footage(project: Path, folder: Path) -> Path:
    for name in ("door.mp4", "door.txt"):
        copy(project / name, folder / name)
    tracklets_of(folder / "door.mp4", folder / "door.txt", folder / "out", Cut())
    return next((folder / "out").rglob("door.json"))


def _cut(path: Path) -> Any:
    folder = path.parents[1]
    entries, *counts = tracklets_of(folder.parent / "door.mp4", folder.parent / "door.txt", folder, Cut())
    pictures = [cv2.imread(str(picture)) for picture in sorted(path.parent.rglob("*.jpg"))]
    return [vars(entry) for entry in entries], counts, pictures


def _gallery() -> Compared:
    return Compared.alone(np.random.default_rng(5).random((120, 8)).astype(np.float32))


def _index(_project: Path, folder: Path) -> Path:
    Index.build(_gallery()).write(folder / "gallery.faiss")
    return folder / "gallery.faiss"


def _nearest(path: Path) -> Any:
    gallery = _gallery()
    return Index.read(path, gallery).nearest(gallery, 3)


CLUSTER = "executor: slurm\nnodes: 2\ngpus_per_node: 4\nminutes: 120\npartition: gpu\nsetup: [module load cuda]\n"
PROTOCOL = "name: mine\nkeep_queries: false\nkeep_junk: false\nmin_length: 2\nignore_same_camera: true\n"
PROTOCOL += "ap: precision\nclothes: any\naverage: found\n"
FINAL = "protocol: mars-standard\nweight: 0.5\nnormalisation: zscore\nrerank: true\n"

SUBJECTS = [
    Subject("config.yaml", "config", _copied("smin/config.yaml"), _configuration, m.YAML),
    Subject("final.yaml", "config", _text("final.yaml", FINAL), lambda path: to_dict(load_final(path)), m.YAML),
    Subject("cluster.yaml", "submission", _text("a.yaml", CLUSTER), load_cluster, m.YAML),
    Subject("protocol.yaml", "evaluation", _text("a.yaml", PROTOCOL), read_protocol, m.YAML),
    Subject(
        "search.yaml",
        "tune",
        lambda _, folder: copy(ROOT / "configs/search/mars.yaml", folder / "s.yaml"),
        _search,
        m.YAML,
    ),
    Subject("best.pt", "runs", _run("best.pt"), _network, b.TORCH, checked=True, wrong=_wrong_network),
    Subject("checkpoint", "runs", _run("checkpoint-*.pt"), _newest, b.TORCH[1:], checked=True),
    Subject("weights .pth", "submission", _weights, _pretrained, [*b.TORCH, b.BOMB], checked=True, wrong=_wrong_trunks),
    Subject("TensorFlow index", "models", _tf(".index"), _tf_values, [], checked=True),
    Subject("TensorFlow values", "models", _tf(".data-00000-of-00001"), _tf_values, [], checked=True),
    Subject("TensorFlow names", "models", lambda p, f: _tf("")(p, f).parent / "checkpoint", _tf_values, m.TEXT),
    Subject("features .npz", "readers", _copied("smin.npz"), read_features, [*b.NPZ, b.BOMB], checked=True),
    Subject(
        "results.json", "report", _final("results.json"), lambda p: read_results(p.parent), m.JSON, wrong=_wrong_results
    ),
    Subject("results.json, fusion", "report", _final("results.json"), read_fused, m.JSON, wrong=_wrong_fused),
    Subject("results.json, judged", "report", _final("results.json"), _judged, m.JSON, wrong=_wrong_judged),
    Subject("queries.csv", "report", _final("queries.csv"), _judged, m.CSV, wrong=_wrong_judged),
    Subject("index of a gallery", "nearest", _index, _nearest, [], checked=True),
    Subject("note of a video", "derived", _footage, _cut, m.JSON),
]
