"""What a reader gets to see: the report in a browser, and the pages of TensorBoard as a browser asks for them."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.serving import tensorboard

from sptskm.report.colours import colour_of
from sptskm.report.page import REPORT

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
LAPTOP = (1366, 768)


@pytest.fixture
def address(written: Path) -> Iterator[str]:
    with tensorboard(written) as found:
        yield found


def ask(address: str, plugin: str, what: str, **question: object) -> bytes:
    text = urllib.parse.urlencode(question)
    with urllib.request.urlopen(f"{address}/data/plugin/{plugin}/{what}?{text}", timeout=60) as answer:
        return bytes(answer.read())


def eventually(so: Callable[[], bool]) -> None:
    """TensorBoard answers while it still reads."""
    until = time.monotonic() + 60
    while not so():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_tensorboard_shows_the_pictures_the_projector_and_single_values_as_a_table(address: str, written: Path) -> None:
    def told(plugin: str, what: str, **question: object) -> Any:
        return json.loads(ask(address, plugin, what, **question))

    assert "mars-official" in ask(address, "text", "text", run=".", tag="results/scores/text_summary").decode()
    curves = ask(address, "text", "text", run=".", tag="results/CMC in percent/text_summary")
    assert curves.decode().partition("<code>")[2].split()[:3] == ["rank", "SSIN", "SMIN"]
    wanted = {"results/CMC", "results/fusion weight", "ranked/best", "cameras/fused"}
    eventually(lambda: wanted <= set(told("images", "tags")["."]))
    first = told("images", "images", run=".", tag="results/CMC", sample=0)[0]
    shown = np.frombuffer(ask(address, "images", f"individualImage?{first['query']}"), np.uint8)
    assert np.array_equal(cv2.imdecode(shown, cv2.IMREAD_COLOR), cv2.imread(str(written / "CMC.png")))
    assert not any(told("scalars", "tags").values()), "a chart of one point says nothing"
    embeddings = told("projector", "info", run="projector")["embeddings"]
    assert sorted(one["tensorName"].partition(":")[0] for one in embeddings) == ["SMIN", "SSIN"]
    for one in embeddings:
        sprite = ask(address, "projector", "sprite_image", run="projector", name=one["tensorName"])
        assert cv2.imdecode(np.frombuffer(sprite, np.uint8), cv2.IMREAD_COLOR).std() > 5


@pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome is installed")
def test_the_report_opens_in_a_browser_without_a_network_and_is_no_wider_than_a_laptop(
    written: Path, tmp_path: Path
) -> None:
    # the page in a frame, which can tell how wide it has become
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="{(written / REPORT).as_uri()}" width="{LAPTOP[0]}" height="{LAPTOP[1]}" '
        'onload="const d = this.contentDocument; document.title = JSON.stringify({wide: d.body.scrollWidth, '
        "images: [...d.images].map(i => i.naturalWidth), heading: d.querySelector('h1').innerText})\"></iframe>"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--no-first-run"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command = [BROWSER, *options, "--virtual-time-budget=20000", "--dump-dom", frame.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    seen = json.loads(dom.partition("<title>")[2].partition("</title>")[0])
    assert seen["heading"] == "runs: results on data"
    assert seen["wide"] <= LAPTOP[0]
    assert len(seen["images"]) > 5
    assert min(seen["images"]) > 100

    picture = tmp_path / "seen.png"
    size = f"--window-size={LAPTOP[0]},{LAPTOP[1]}"
    command = [BROWSER, *options, size, f"--screenshot={picture}", (written / REPORT).as_uri()]
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    pixels = cv2.imread(str(picture))
    assert pixels is not None
    drawn = (np.abs(pixels[..., ::-1].astype(int) - colour_of("fused")).max(axis=2) < 12).sum()
    assert drawn > 50, "the curve of the fused ranking is not to be seen without scrolling"
