# An image with the toolkit and the PyTorch that pip chooses, on x86-64 a CUDA build of several GB. For another one give a base
# image with PyTorch in it:
#   docker build --build-arg BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime -t sptskm .
#   docker run --rm --shm-size 2g -v /data:/data -v "$PWD/runs:/project/runs" sptskm check /data/mars
ARG BASE=python:3.12-slim
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/sptskm
COPY setup.py pyproject.toml README.md LICENSE constraints.txt ./
COPY sptskm sptskm
COPY configs configs
COPY slurm slurm
RUN python -m pip install --no-cache-dir '.[onnx,optuna,fast]'
WORKDIR /project
ENV OMP_NUM_THREADS=1
ENTRYPOINT ["sptskm"]
CMD ["--help"]
