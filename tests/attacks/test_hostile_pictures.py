"""Pictures that are no pictures, bombs, and deep ones: refused in a sentence, or read in little memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from tiny_world import Run, World, refused_run

from refusals import refused
from wildpdiff.errors import DataError
from wildpdiff.tasks.decoding import IMAGE_FORMATS, MOST_PIXELS
from wildpdiff.tasks.image_files import read_images

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 30 30
%%EndComments
(marker) (w) file closepath
showpage
%%EOF
"""


def png_of(width: int, height: int, depth: int) -> bytes:
    """A valid black grey PNG, made without holding its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = bytes(1 + width * depth // 8)
    packer = zlib.compressobj(1)
    packed = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp", ".eps"])
def test_an_eps_file_starts_no_program(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    for name in ("Popen", "run", "check_call", "call"):
        monkeypatch.setattr(subprocess, name, started)
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(EPS)
    with refused(DataError, path):
        read_images([path], 8)


@pytest.mark.parametrize("form", ["PPM", "TGA", "PCX", "SGI", "ICO", "IM", "JPEG2000", "PDF", "DDS", "MSP"])
def test_formats_that_are_not_named_are_not_opened(tmp_path: Path, form: str) -> None:
    path = tmp_path / "picture.png"
    mode = "1" if form == "MSP" else "RGB"
    try:
        Image.new(mode, (16, 16)).save(path, form)
    except (OSError, KeyError):
        pytest.skip(f"Pillow here writes no {form}")
    with refused(DataError, path):
        read_images([path], 8)


@pytest.mark.parametrize("form", IMAGE_FORMATS)
def test_formats_that_are_named_are_opened_whatever_the_suffix(tmp_path: Path, form: str) -> None:
    path = tmp_path / "picture.JPG"
    Image.new("RGB", (20, 16), (200, 100, 50)).save(path, form)
    assert np.allclose(read_images([path], 4), (200, 100, 50), atol=6)


@pytest.mark.parametrize(("width", "height"), [(13_300, 13_300), (10_001, 10_000), (100_000, 1_001), (20_000, 20_000)])
def test_a_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("the picture was decoded")

    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(width, 1, 16).replace(struct.pack(">II", width, 1), struct.pack(">II", width, height)))
    data = bytearray(path.read_bytes())
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with refused(DataError, path, "100 million"):
            read_images([path], 8)


def test_predict_repeats_no_warning_of_pillow(world: World, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(10_050, 10_050, 1))
    outcome = run("predict", world.adapter, path, "--backbone", world.backbone)
    refused_run(outcome, "bomb.png", "10050×10050", "million")
    assert "Warning" not in outcome.err


MEMORY = """
import resource, sys
from wildpdiff.tasks.image_files import read_images
read_images([sys.argv[2]], 96)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_images([sys.argv[1]], 96)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_a_deep_picture_takes_about_the_memory_of_its_pixels(tmp_path: Path) -> None:
    side = 6_000
    assert side * side < MOST_PIXELS
    (tmp_path / "deep.png").write_bytes(png_of(side, side, 16))
    (tmp_path / "small.png").write_bytes(png_of(64, 64, 16))
    words = [sys.executable, "-c", MEMORY, str(tmp_path / "deep.png"), str(tmp_path / "small.png")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 5 * side * side  # two bytes decoded, one in eight bits, and strips


def test_deep_greys_are_scaled_as_before_in_every_strip(tmp_path: Path) -> None:
    values = np.linspace(0, 65_535, 700 * 700).reshape(700, 700)
    for name, array in {"deep.png": values.astype(np.uint16), "deep.tif": (values / 65_535).astype(np.float32)}.items():
        Image.fromarray(array).save(tmp_path / name)
        found = read_images([tmp_path / name], 700)[0][..., 0].astype(float)
        assert np.abs(found - values / 257).max() <= 0.51


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_turned_after_scaling_is_what_was_turned_before(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    pixels = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as file:
        before = ImageOps.fit(ImageOps.exif_transpose(file), (12, 12), Image.Resampling.BILINEAR)
    assert np.abs(read_images([path], 12)[0].astype(int) - np.asarray(before)).max() <= 1


def test_broken_files_of_every_kind_are_read_or_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    for form in IMAGE_FORMATS:
        path = tmp_path / "whole"
        Image.fromarray(noise.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path, form)
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for index in noise.integers(0, len(data), 6):
                data[index] = noise.integers(0, 256)
            path.write_bytes(data[: noise.integers(1, len(data) + 1)])
            with suppress(DataError):  # and nothing else; many still are pictures
                read_images([path], 8)
