"""Memory of freed tensors is used again."""

import platform
import resource

import pytest
import torch

from sptskm.training.memory import keep_freed_memory


def faults_of_a_large_tensor() -> int:
    """Pages of 64 MiB that the system had to hand out."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc: nothing can be set")
def test_a_large_tensor_takes_the_pages_of_the_one_before():
    keep_freed_memory()
    for _ in range(10):  # glibc keeps up to seven scraps beside large blocks, each of which splits the free memory
        faults_of_a_large_tensor()
    assert faults_of_a_large_tensor() < 2**24 * 4 / resource.getpagesize() / 10
