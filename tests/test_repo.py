"""The house keeps its rules: read from the source itself."""

import ast
import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers.launching import ROOT

from sptskm.config import STREAMS, Final
from sptskm.configfile import flat, load, load_final, to_dict
from sptskm.launching.cluster import Cluster, load_cluster
from sptskm.tuning import Distribution, load_search
from sptskm.tuning.space import Rules

# From the roof down; a module imports from its own room and from those below.
ROOMS = [
    "cli",
    "config_command",
    "feature_commands",
    "launching",
    "api",
    "final",
    "export",
    "nearest",
    "score",
    "extraction",
    "streams",
    "training",
    "preparation",
    "report",
    "evaluation",
    "models",
    "synthetic",
    "provenance",
    "data",
    "tuning",
    "trunkfile",
    "configfile",
    "config",
    "sections",
    "common",
    "sptskm",
]
NO_TORCH = [
    "sptskm/common",
    "sptskm/evaluation",
    "sptskm/config.py",
    "sptskm/sections.py",
    "sptskm/cli.py",
    "sptskm/feature_commands.py",
    "sptskm/launching",
]
HOME = {
    "submitit": "sptskm/launching",
    "ray": "sptskm/launching",
    "optuna": "sptskm/launching",
    "torch.distributed": "sptskm/training/world.py",
    "SummaryWriter": "sptskm/report",
}
SPEAKING = ["sptskm/cli.py", "sptskm/feature_commands.py", "sptskm/launching", "benchmarks"]
FORBIDDEN = {"weights_only": False, "shell": True, "allow_pickle": True}

MODULES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for folder in ("sptskm", "launch", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
HOUSE = {name: tree for name, tree in MODULES.items() if name.startswith("sptskm")}


def lies_in(name: str, places: list[str]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


def room(dotted: str) -> str:
    package, _, rest = dotted.partition(".")
    return rest.split(".")[0] if package == "sptskm" and rest else package


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported, anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node: ast.AST) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "?")


def definitions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))


def test_a_module_imports_only_from_its_own_room_and_those_below():
    seen = set()
    for name, tree in HOUSE.items():
        if name == "sptskm/__init__.py":  # the front door, which opens `sptskm.api` when it is asked for
            continue
        own = room(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for target in imports(tree):
            if target.split(".")[0] == "sptskm":
                # `from sptskm import __version__` is no room
                other = "sptskm" if target == "sptskm.__version__" else room(target)
                seen.add((own, other))
                assert ROOMS.index(own) <= ROOMS.index(other), f"{name} imports {target}"
    assert {own for own, _ in seen} >= {
        "launching",
        "cli",
        "final",
        "training",
        "report",
        "models",
        "synthetic",
        "data",
    }
    assert {other for own, other in seen if own == "config"} == {"common", "sections"}
    assert {other for own, other in seen if own == "sections"} == {"common"}
    assert {other for own, other in seen if own == "common"} == {"common"}, "nothing is below the ground floor"


def test_the_rooms_are_those_that_contributors_are_told():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    told = [name for row in rows for name in re.findall(r"`(?:sptskm/)?([a-z_]+)(?:/|\.py)`", row)]
    assert told == ROOMS[:-1]


def test_torch_stays_out_of_what_must_answer_at_once_and_of_the_evaluation():
    checked = 0
    for name, tree in HOUSE.items():
        if lies_in(name, NO_TORCH):
            checked += 1
            assert not [target for target in imports(tree) if target.split(".")[0] == "torch"], name
    assert checked >= 12


@pytest.mark.parametrize("thing", HOME)
def test_some_things_have_one_home(thing):
    places = []
    for name, tree in MODULES.items():
        used = {*imports(tree), *(dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))}
        if any(re.search(rf"(^|\.){re.escape(thing)}(\.|$)", target) for target in used):
            places.append(name)
    assert places
    assert all(lies_in(name, [HOME[thing]]) for name in places), places


def test_nothing_that_executes_what_it_reads():
    for name, tree in MODULES.items():
        assert not {"pickle", "cloudpickle", "dill", "joblib", "shelve"} & {i.split(".")[0] for i in imports(tree)}, (
            name
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                assert dotted(node.func) not in ("yaml.load", "yaml.unsafe_load", "eval", "exec", "os.system"), name
                for keyword in node.keywords:
                    wrong = isinstance(keyword.value, ast.Constant) and keyword.arg in FORBIDDEN
                    assert not wrong or keyword.value.value is not FORBIDDEN[keyword.arg], f"{name}: {keyword.arg}"
                if dotted(node.func) == "torch.load":
                    assert "weights_only" in {keyword.arg for keyword in node.keywords}, name


def test_only_programs_print():
    printing = {
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    }
    assert "sptskm/cli.py" in printing
    assert all(lies_in(name, SPEAKING) for name in printing), printing


def test_functions_and_modules_are_short():
    for name, tree in MODULES.items():
        assert len((ROOT / name).read_text().splitlines()) <= 400, name
        for node in definitions(tree):
            length = node.end_lineno - node.lineno + 1
            assert isinstance(node, ast.ClassDef) or length <= 60, f"{name}: {node.name} has {length} lines"


def documented(tree: ast.AST) -> set[str]:
    return {node.name for node in definitions(tree) if ast.get_docstring(node)}


CLASSES = {node.name: node for tree in HOUSE.values() for node in tree.body if isinstance(node, ast.ClassDef)}


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public names without docstring; `forward` is told by its class, a method also by a protocol or a base class."""
    bases = [CLASSES.get(dotted(base)) for node in tree.body if isinstance(node, ast.ClassDef) for base in node.bases]
    told = {"forward"} | documented(tree).union(*(documented(base) for base in bases if base))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            for part in methods if isinstance(node, ast.ClassDef) else []:
                if not part.name.startswith("_") and not ast.get_docstring(part) and part.name not in told:
                    yield f"{node.name}.{part.name}"


def test_everything_public_has_a_docstring():
    assert not [f"{name}: {found}" for name, tree in HOUSE.items() for found in undocumented(tree)]
    assert not [name for name, tree in MODULES.items() if tree.body and not ast.get_docstring(tree)]


def written(path: Path) -> int:
    """Values that a YAML file holds (the stream's name aside): lines with something behind the colon."""
    lines = (line.split(" #")[0].rstrip() for line in path.read_text().splitlines() if not line.startswith("#"))
    return sum(bool(re.search(r":\s+\S", line)) and not line.startswith("stream:") for line in lines)


CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_a_configuration_loads_and_holds_only_what_differs_from_the_defaults(path):
    if path.parent.name == "cluster":
        found, default = vars(load_cluster(path)), vars(Cluster())
    elif path.parent.name == "search":
        searches, content = load_search(path), yaml.safe_load(path.read_text())
        shared = vars(Rules()) | {key: value for key, value in content.items() if key not in searches}
        default = vars(Rules()) | {f"{stream}.{rule}": value for stream in searches for rule, value in shared.items()}
        found = {rule: shared[rule] for rule in vars(Rules())}
        found |= {f"{stream}.{name}": value for stream in searches for name, value in vars(searches[stream]).items()}
        found |= {f"{stream}.{name}": draw for stream in searches for name, draw in searches[stream].space.items()}
        found = {name: value for name, value in found.items() if not name.endswith((".stream", ".space"))}
        default |= {name: None for name, draw in found.items() if isinstance(draw, Distribution)}
    elif path.stem == "final":
        found, default = vars(load_final(path)), vars(Final())
    else:
        found, default = flat(to_dict(load(path))), flat(to_dict(STREAMS[path.stem].defaults))
    assert sum(found[key] != default[key] for key in found) == written(path)


def test_no_file_knows_the_machine_it_was_written_on():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so it is unknown which files belong to it")
    machine = re.compile("/" + "work/|/" + "root/|/" + "opt/pypi|index" + "-url|pypi" + r"\.|python" + "hosted")
    files = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    assert len(files) > 50
    for path in files:
        found = machine.search(path.read_text(errors="replace"))
        assert not found, f"{path}: {found.group()}"


@pytest.mark.parametrize(
    ("module", "classes"),
    [
        ("sptskm/config.py", ("Data", "Optim", "Sampling", "Train", "Extract")),
        ("sptskm/sections.py", ("SsinClips", "SsinModel", "SsinLoss")),
        ("sptskm/sections.py", ("SminClips", "SminModel", "SminLoss")),
        ("sptskm/sections.py", ("GaitClips", "GaitModel", "GaitLoss", "Final")),
        ("sptskm/tuning/space.py", ("Rules",)),
        ("sptskm/launching/cluster.py", ("Cluster",)),
        ("sptskm/evaluation/protocols.py", ("Protocol",)),
    ],
)
def test_every_key_that_a_file_may_hold_says_what_it_means(module, classes):
    bodies = {node.name: node.body for node in definitions(MODULES[module]) if node.name in classes}
    assert set(bodies) == set(classes)
    for name, body in bodies.items():
        for key, after in itertools.pairwise([*body, None]):
            if isinstance(key, ast.AnnAssign):
                said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert said, f"{name}.{dotted(key.target)}: wanted a line below that says what it means"
