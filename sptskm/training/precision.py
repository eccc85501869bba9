"""Number formats of a run."""

from dataclasses import dataclass
from typing import Any

import torch

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Parameters and inputs are `dtype`; matrix products run in `cast` where it is not None."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    cast: torch.dtype | None = None

    @classmethod
    def of(cls, name: str, device: torch.device) -> "Precision":
        """By configuration name; "auto" is bfloat16 autocast on a GPU and float32 on a CPU."""
        if name == "auto":
            name = "bfloat16" if device.type == "cuda" else "float32"
        if name == "float64":
            return cls(device, torch.float64)
        return cls(device, cast=_AUTOCAST.get(name))

    def autocast(self) -> Any:
        """The context in which the network runs."""
        return torch.autocast(self.device.type, dtype=self.cast, enabled=self.cast is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, active for float16 only."""
        return torch.amp.GradScaler(self.device.type, enabled=self.cast is torch.float16)
