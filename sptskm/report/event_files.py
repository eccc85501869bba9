"""TensorBoard event files that sort in the order in which they were started, and whose errors name them.

TensorBoard reads the files of a folder in the order of their names, which begin with the time. If a clock was set back,
or another node's clock is behind, a later start would be read first, and the earlier start would then remove what the
later one has logged.
"""

import re
import struct
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

from sptskm.common.atomic import naming
from sptskm.common.checksums import masked_checksum

FLUSH_SECONDS = 20.0
NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.")
VERSION = "brain.Event:2"


class EventFile:
    """One event file with the interface that PyTorch's writer needs.

    An event is on disk some seconds after it was added. Raises OSError naming the file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._file = _created(folder)
        self._flushed = 0.0
        self.add_event(Event(wall_time=time.time(), file_version=VERSION))

    def get_logdir(self) -> str:
        """Return the folder."""
        return str(self._folder)

    def add_event(self, event: Any) -> None:
        """Append an event."""
        with naming(self.path):
            self._file.write(record(event.SerializeToString()))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self.flush()

    def flush(self) -> None:
        """Pass all buffered events to the operating system."""
        with naming(self.path):
            self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write all buffered events and close the file."""
        with naming(self.path):
            self._file.close()


class Writer(SummaryWriter):
    """PyTorch's writer with an EventFile; `purge_step` removes what earlier files hold from that step on."""

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            writer: Any = FileWriter.__new__(FileWriter)
            writer.event_writer = EventFile(Path(self.log_dir))
            self.file_writer, self.all_writers = writer, {writer.get_logdir(): writer}  # type: ignore[assignment]
            if self.purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                writer.add_event(Event(step=self.purge_step, file_version=VERSION))
                writer.add_event(Event(step=self.purge_step, session_log=start))
                self.purge_step = None
        return self.file_writer


def record(content: bytes) -> bytes:
    """Return an entry of a TFRecord file; TensorBoard's own writer computes the checksums in Python, byte by byte."""
    length = struct.pack("<Q", len(content))
    return b"".join(part + struct.pack("<I", masked_checksum(part)) for part in (length, content))


def _created(folder: Path) -> tuple[Path, Any]:
    """Create a file whose name sorts after those of all other event files in the folder."""
    there = (NAME.match(path.name) for path in folder.iterdir())
    latest = max((int(found[1]) for found in there if found), default=0)
    number = max(int(time.time()), latest + 1)
    path = folder / f"events.out.tfevents.{number:010d}.sptskm"
    return path, path.open("xb")
