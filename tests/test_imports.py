"""What a process pays before it begins: which packages are imported by what."""

import json
import subprocess
import sys

# CPU time that some cost every process: torch 0.9 s, its compiler 1.0 s, matplotlib 0.3 s, TensorBoard 0.2 s
HEAVY = (
    "torch",
    "torch._dynamo",
    "matplotlib",
    "tensorboard",
    "ray",
    "submitit",
    "pandas",
    "pyarrow",
    "onnx",
    "optuna",
    "transformers",
)
NEEDED = {
    "sptskm.cli": [],
    "sptskm.evaluation": [],
    "sptskm.launching.local": [],
    "sptskm.launching.tune": [],
    "sptskm.launching.slurm": ["submitit"],
    "sptskm.launching.jobs": [],
    "sptskm.models": ["torch"],
    "sptskm.training.extract": [],
    "sptskm.training.trainer": [],
}
"""The heavy packages that a module brings in beyond those of the modules above it."""
PROGRAM = f"""
import importlib, json, sys
found, before = {{}}, set()
for module in {list(NEEDED)}:
    importlib.import_module(module)
    now = {{name for name in {HEAVY} if name in sys.modules}}
    found[module], before = sorted(now - before), now
print(json.dumps(found))
"""


def test_modules_import_no_heavy_package_that_they_may_not_need() -> None:
    """Every rank of every job imports these; what only one of them needs, or only sometimes, is imported there."""
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == NEEDED
