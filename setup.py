"""Package metadata. Version ranges live here, the tested versions in constraints.txt, tool settings in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "([^"]+)"', Path(__file__).with_name("sptskm").joinpath("__init__.py").read_text())
assert VERSION is not None

setup(
    name="sptskm",
    version=VERSION[1],
    description="Long-term person re-identification from walking tracklets, on frames, silhouettes and skeletons, on clusters",
    python_requires=">=3.10",
    # configurations and batch templates are read in the root of a checkout, and inside of the package once installed
    packages=[*find_packages(include=["sptskm", "sptskm.*"]), "sptskm.configs", "sptskm.slurm"],
    package_dir={"sptskm.configs": "configs", "sptskm.slurm": "slurm"},
    package_data={
        "sptskm.report": ["*.jinja"],
        "sptskm.configs": ["*/*.yaml"],
        "sptskm.slurm": ["*.sbatch", "devcluster"],
    },
    # each bound is a version that exists: .ci/lowest installs exactly these (but for torch) and tests them
    install_requires=[
        "torch>=2.8",
        "numpy>=1.26",
        "scipy>=1.11.1",
        "opencv-python>=4.11.0.86",
        "pyyaml>=6.0.1",
        "pydantic>=2.7",
        "pyarrow>=15.0",
        "google-crc32c>=1.6",
        "tensorboard>=2.21",
        "matplotlib>=3.8",
        "pillow>=10.0.1",
        "jinja2>=3.1.2",
        "tqdm>=4.66",
        "submitit>=1.5.4",
        "ray[tune]>=2.50",
    ],
    extras_require={
        "optuna": ["optuna>=4.0"],
        "fast": ["simplejpeg>=1.8", "ai-edge-litert>=2.0"],
        "onnx": ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.20"],
        "index": ["faiss-cpu>=1.9"],
        "backbones": ["transformers>=4.57"],
        "wandb": ["wandb>=0.18"],
        "mlflow": ["mlflow-skinny>=2.16"],
        "docs": ["sphinx>=8.0", "myst-parser>=4.0", "furo>=2024.8"],
        "dev": [
            "sptskm[backbones,onnx,index,docs,wandb,mlflow]",
            "optuna>=4.0",
            "simplejpeg>=1.8",
            "ai-edge-litert>=2.0",
            "pytest>=8.0",
            "pytest-xdist>=3.7",
            "ruff>=0.6",
            "mypy>=1.11",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["sptskm = sptskm.cli:main"]},
)
