"""The only writer of a run's TensorBoard files.

TensorBoard is imported when something is written, which only the first rank of a run does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.atomic import naming


class Board:
    """Scalars, pictures and text of one run; with `writes` False (ranks other than 0) nothing is written.

    `first_step` is the step from which the run continues: what an interrupted run has logged from this step on is
    replaced, so that no step appears twice. None keeps everything.
    """

    def __init__(self, folder: Path, first_step: int | None = 0, writes: bool = True) -> None:
        self._writer: Any = None
        if writes:
            from sptskm.report.event_files import Writer

            self._writer = Writer(str(folder), purge_step=first_step)

    def scalars(self, values: Mapping[str, float], step: int, when: float | None = None) -> None:
        """Write one point per tag, with the current time or a time in seconds since 1970."""
        if self._writer is not None:
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step, when)

    def picture(self, tag: str, image_HW3: NDArray[np.uint8], step: int) -> None:
        """Write an RGB picture."""
        if self._writer is not None:
            self._writer.add_image(tag, image_HW3, step, dataformats="HWC")

    def encoded(self, tag: str, file: bytes, size: tuple[int, ...]) -> None:
        """Write an RGB picture of size (H, W) that is a file already, a PNG or JPEG."""
        if self._writer is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=file)
            summary = Summary(value=[Summary.Value(tag=tag, image=image)])
            self._writer._get_file_writer().add_summary(summary, 0)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Write a page of text."""
        if self._writer is not None:
            self._writer.add_text(tag, markdown, step)

    def embedding(
        self,
        tag: str,
        features_ND: NDArray[np.float32],
        lines: Sequence[Sequence[str]],
        thumbnails_N3EE: NDArray[np.float32] | None,
    ) -> None:
        """Write points for the projector: features, a header, and a line of metadata for each point.

        Thumbnails are square, in 0..1.
        """
        if self._writer is not None:
            import torch

            plain = [[" ".join(cell.split()) for cell in line] for line in lines]
            images = None if thumbnails_N3EE is None else torch.from_numpy(thumbnails_N3EE)
            with naming(Path(self._writer.log_dir)):
                self._writer.add_embedding(features_ND, plain[1:], images, tag=tag, metadata_header=plain[0])

    def hyperparameters(self, settings: Mapping[str, Any]) -> None:
        """Write this run's row in HParams."""
        if self._writer is not None:
            from torch.utils.tensorboard.summary import hparams

            _, session, _ = hparams(_plain(settings), {})
            # without an end: a run that is ended by others, or killed, is listed all the same
            self._writer._get_file_writer().add_summary(session)

    def experiment(self, examples: Mapping[str, Any], metrics: Sequence[str], first: Sequence[str] = ()) -> None:
        """Write the columns of HParams for this folder and its subfolders: settings and metrics.

        Metrics are tags whose last point is a result. HParams shows five settings until others are chosen: `first`,
        else the first by name.
        """
        if self._writer is not None:
            from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
            from torch.utils.tensorboard.summary import hparams

            experiment, _, _ = hparams(_plain(examples), dict.fromkeys(metrics, 0.0))
            plugin = experiment.value[0].metadata.plugin_data
            content = HParamsPluginData.FromString(plugin.content)
            for column in content.experiment.hparam_infos:
                column.differs = column.name in first  # by which HParams sorts
            plugin.content = content.SerializeToString()
            self._writer._get_file_writer().add_summary(experiment)

    def layout(self, charts: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        """Write the charts of the page of custom scalars: groups of charts, each with its kind and its tags."""
        if self._writer is not None:
            self._writer.add_custom_scalars(charts)

    def close(self) -> None:
        """Flush to disk and close."""
        if self._writer is not None:
            self._writer.close()


def clear(folder: Path) -> None:
    """Remove the TensorBoard files of an earlier evaluation from a folder, so that there is always one page."""
    for old in (*folder.glob("events.out.tfevents.*"), *folder.glob("projector_config.pbtxt")):
        old.unlink()


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert all values to numbers and text: HParams reads booleans as numbers and has no lists."""
    numbers = {
        name for name, value in settings.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {name: value if name in numbers else str(value) for name, value in settings.items()}
