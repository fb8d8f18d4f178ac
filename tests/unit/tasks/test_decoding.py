"""Formats and colours of picture files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from refusals import refused
from wildpdiff.errors import DataError
from wildpdiff.tasks.decoding import stated_size
from wildpdiff.tasks.framing import GREY, View
from wildpdiff.tasks.image_files import read_images, read_views

RED = (200, 40, 20)


def read(path: Path, size: int = 8) -> np.ndarray:
    return read_images([path], size)[0].astype(int)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def ramp(side: int = 64) -> np.ndarray:
    return np.add.outer(np.arange(side), np.arange(side)).astype(float) / (2 * side - 2)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_print_colours_become_those_of_screens(tmp_path: Path, form: str) -> None:
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(path, form)
    assert np.abs(read(path) - (255, 0, 0)).max() <= 3


def test_grey_of_one_eight_and_sixteen_bits_is_the_same_grey(tmp_path: Path) -> None:
    Image.fromarray(np.rint(ramp() * 255).astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(np.rint(ramp() * 65535).astype(np.uint16)).save(tmp_path / "16.png")
    Image.fromarray(np.rint(ramp() * 65535).astype(">u2")).save(tmp_path / "big-endian.tif")
    for name in ("16.png", "big-endian.tif"):
        assert np.abs(read(tmp_path / name) - read(tmp_path / "8.png")).max() <= 1
    Image.fromarray(ramp() > 0.5).save(tmp_path / "1.png")
    assert read(tmp_path / "1.png")[[0, -1], [0, -1], 0].tolist() == [0, 255]


def test_colours_of_sixteen_bits_are_read(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + b"".join(struct.pack(">H", value * 257) for value in RED) * 10
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row * 10)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(data)
    assert np.abs(read(tmp_path / "deep.png") - RED).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "GIF"])
def test_transparent_pixels_lie_on_grey_and_hide_their_colour(tmp_path: Path, mode: str, form: str) -> None:
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    pixels[..., :3] = (255, 255, 255)  # white where it is transparent
    pixels[:, :8] = (*RED, 255)
    image = Image.fromarray(pixels)
    path = tmp_path / "picture.png"
    if (form, mode) in {("TIFF", "P"), ("GIF", "P"), ("GIF", "LA")}:
        pytest.skip(f"Pillow writes no transparent {form} of {mode}")
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    image.save(path, form, **({"lossless": True} if form == "WEBP" else {}))
    found = read(path, 16)
    grey = np.full(3, image.convert("RGB").getpixel((0, 0)) if mode == "LA" else RED)
    assert np.abs(found[:, :7] - grey).max() <= 6
    assert np.abs(found[:, 9:] - GREY).max() <= 1


def test_half_transparent_pixels_are_mixed_with_grey(tmp_path: Path) -> None:
    Image.new("RGBA", (10, 10), (255, 255, 255, 128)).save(tmp_path / "half.png")
    assert np.abs(read(tmp_path / "half.png") - (255 + GREY) / 2).max() <= 1


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_of_several_pictures_is_read(tmp_path: Path, form: str) -> None:
    first, second = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), (0, 0, 255))
    path = tmp_path / "several.JPG"
    first.save(path, form, save_all=True, append_images=[second])
    with Image.open(path) as file:
        assert file.format == form
    assert np.abs(read(path) - RED).max() <= 4


def test_a_camera_that_writes_mpo_may_lose_its_second_picture(tmp_path: Path) -> None:
    picture = Image.fromarray(np.repeat((ramp(256) * 255).astype(np.uint8)[..., None], 3, 2))
    data = encoded(picture, "MPO", save_all=True, append_images=[picture.rotate(90)])
    (tmp_path / "cut.JPG").write_bytes(data[: len(data) * 3 // 4])
    (tmp_path / "plain.JPG").write_bytes(encoded(picture, "JPEG"))
    assert (read(tmp_path / "cut.JPG") == read(tmp_path / "plain.JPG")).all()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("tail", ["nothing", "zeros", "ones"])
def test_a_jpeg_that_ends_early_is_refused(tmp_path: Path, progressive: bool, tail: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", progressive=progressive)
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    read(path)
    path.write_bytes(data + bytes(5000))  # a camera may fill up to a block
    read(path)
    rest = {"nothing": b"", "zeros": b"\0", "ones": b"\xff"}[tail] * (len(data) // 2)
    path.write_bytes(data[: len(data) // 2] + rest)
    for size in (8, 128):
        with refused(DataError, path):
            read(path, size)


@pytest.mark.parametrize(
    ("beginning", "word"),
    [
        (b"", "empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
        (b"RIFF\x10\x20\x30\x40AVI LIST", "video"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"Hello", "JPEG"),
    ],
)
def test_files_that_are_no_pictures_are_named_as_what_they_are(tmp_path: Path, beginning: bytes, word: str) -> None:
    path = tmp_path / "IMG_0001.JPG"
    path.write_bytes(beginning)
    for call in (lambda: read(path), lambda: stated_size(path)):
        with refused(DataError, path, word):
            call()


def test_the_size_is_known_without_decoding(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (300, 200), RED), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(data[:-40])
    assert stated_size(tmp_path / "cut.jpg") == (300, 200)


def test_paths_that_no_file_has_are_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    for path in (tmp_path / "absent.jpg", tmp_path / "pipe.jpg", Path("a\0b.jpg"), tmp_path / ("x" * 300)):
        with refused(DataError, path):
            read(path)


def test_a_jpeg_scaled_in_decoding_is_nearly_the_same(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 20, (540, 960, 3))
    scene = 128 + 60 * np.sin(np.arange(960) / 37)[None, :, None] * np.cos(np.arange(540) / 23)[:, None, None]
    picture = Image.fromarray((scene + noise).clip(0, 255).astype(np.uint8))
    data = encoded(picture, "JPEG", quality=90)
    (tmp_path / "picture.jpg").write_bytes(data)
    Image.open(io.BytesIO(data)).save(tmp_path / "same.png")
    for box in (None, (0.4, 0.3, 0.3, 0.5)):
        for framing in ("square", "whole", "box"):
            views = [View(tmp_path / name, box) for name in ("picture.jpg", "same.png")]
            scaled, exact = read_views(views, 48, framing).astype(int)
            assert np.abs(scaled - exact).mean() < 2
            assert np.abs(scaled - exact).max() <= 12


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_jpeg_is_scaled_in_decoding_too(tmp_path: Path, orientation: int) -> None:
    scene = 128 + 60 * np.outer(np.cos(np.arange(603) / 23), np.sin(np.arange(801) / 37))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(scene.astype(np.uint8)).convert("RGB")
    stored.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    Image.open(tmp_path / "turned.jpg").save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as file:
        ImageOps.exif_transpose(file).save(tmp_path / "upright.png")
    for framing in ("square", "whole", "box"):
        views = [View(tmp_path / name, (0.1, 0.5, 0.4, 0.3)) for name in ("turned.jpg", "upright.png")]
        scaled, exact = read_views(views, 32, framing).astype(int)
        assert np.abs(scaled - exact).max() <= 5


def test_broken_notes_do_not_make_a_picture_unreadable(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (16, 16), RED), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    (tmp_path / "notes.jpg").write_bytes(data)
    assert np.abs(read(tmp_path / "notes.jpg") - RED).max() <= 4
