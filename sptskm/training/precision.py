"""Number formats of a run."""

from dataclasses import dataclass
from typing import Any

import torch

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
BFLOAT16_SINCE = (8, 0)  # compute capability; earlier GPUs only imitate it, slowly


@dataclass(frozen=True)
class Precision:
    """Number formats: parameters and inputs are `dtype`; matrix products run in `cast` unless it is None."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    cast: torch.dtype | None = None

    @classmethod
    def of(cls, name: str, device: torch.device) -> "Precision":
        """Return the precision by its name in the configuration; "auto" is the choice of `automatic`.

        On a GPU, float32 turns TF32 off for this process, and any other precision allows it again in convolutions.
        """
        if name == "auto":
            name = automatic(device)
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = name != "float32"  # PyTorch's own default is True
            torch.backends.cuda.matmul.allow_tf32 = False  # its default
        if name == "float64":
            return cls(device, torch.float64)
        return cls(device, cast=_AUTOCAST.get(name))

    def __str__(self) -> str:
        return str(self.cast or self.dtype).removeprefix("torch.")

    def autocast(self) -> Any:
        """Return the autocast context in which the network runs."""
        return torch.autocast(self.device.type, dtype=self.cast, enabled=self.cast is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler, active for float16 only."""
        return torch.amp.GradScaler(self.device.type, enabled=self.cast is torch.float16)


def automatic(device: torch.device) -> str:
    """Choose float32 on a CPU; on a GPU bfloat16 if it can compute with it, else float16."""
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.get_device_capability(device) >= BFLOAT16_SINCE else "float16"
