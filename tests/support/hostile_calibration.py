"""Calibration folders and files as someone would make them who means harm."""

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from image_folders import write_images
from PIL import Image

Write = Callable[[Path], object]

SAMPLES = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)


def npz(content: bytes, name: str = "image.npy") -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)

    return write


def npy(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    """An array whose header says more than there is."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + data


def _header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _objects(path: Path) -> None:
    np.savez(path, image=np.array([{"a": 1}], dtype=object))


def _half(path: Path) -> None:
    np.savez(path, image=SAMPLES)
    path.write_bytes(path.read_bytes()[:3000])


def _flipped(path: Path) -> None:
    np.savez_compressed(path, image=SAMPLES)
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)


REFUSED_NPZ: dict[str, tuple[Write, str]] = {
    "shape without end": (npz(npy((10**12, 3, 8, 8))), "asks for 768,000,000,000,"),
    "bomb": (npz(npy((10**7, 3, 8, 8), bytes(1 << 26))), "asks for 7,680,000,"),
    "shape below 0": (npz(npy((-1, 3, 8, 8))), "cannot be read"),
    "program as header": (npz(_header(b"__import__('os').system('touch pwned')\n")), "cannot be read"),
    "brackets as header": (npz(_header(b"(" * 9000)), "cannot be read"),
    "header without end": (
        npz(b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**7) + b" " * 10**7),
        "calib.npz: ",
    ),
    "objects": (_objects, "never loaded"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps(SAMPLES)), "cannot be read"),
    "no zip": (lambda path: path.write_bytes(b"PK\x03\x04junk"), "not a zip file"),
    "empty": (lambda path: path.write_bytes(b""), "not a zip file"),
    "cut short": (_half, "not a zip file"),
    "damaged": (_flipped, "cannot be read"),
    "a pipe": (lambda path: os.mkfifo(path), "neither a folder nor"),
}


def _png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def in_folder(name: str, content: bytes) -> Write:
    """A folder of sound images and one file more."""
    return lambda folder: (write_images(folder) / "00" / name).write_bytes(content)


def _deep(folder: Path) -> None:
    write_images(folder).joinpath(*["d"] * 120).mkdir(parents=True)


REFUSED_FOLDERS: dict[str, tuple[Write, str]] = {
    "image bomb": (in_folder("b.png", _png(60_000, 60_000)), "decompression bombs"),
    "image cut short": (in_folder("b.png", _png(64, 64)[:60]), "cannot be decoded"),
    "empty image": (in_folder("b.png", b""), "cannot be decoded"),
    "program as image": (in_folder("b.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"), "cannot be decoded"),
    "odd name": (in_folder("-r\n\x1b[31m.png", b""), "-r ?[31m.png: the image cannot be decoded"),
    "deep": (_deep, "folders deep"),
    "labels of bytes": (lambda f: (write_images(f) / "labels.csv").write_bytes(b"\xff\xfe\x00"), "UTF-8"),
    "labels without end": (
        lambda f: (write_images(f) / "labels.csv").write_text("a" * 200_000 + ",1\n"),
        "labels.csv",
    ),
}


def _loops(folder: Path) -> None:
    write_images(folder)
    (folder / "self").symlink_to("self")
    (folder / "00" / "up").symlink_to("..")


def _web(folder: Path) -> None:
    """Links from every folder to every other: factorially many paths."""
    write_images(folder, classes=12, per_class=1)
    for here in range(12):
        for there in range(12):
            (folder / f"{here:02d}" / f"link{there}").symlink_to(f"../{there:02d}")


def _animated(folder: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, shade, shade)) for shade in range(50)]
    for name in ("a.gif", "a.tif", "a.webp"):
        frames[0].save(write_images(folder / name) / name, save_all=True, append_images=frames[1:])


def _special(folder: Path) -> None:
    write_images(folder)
    (folder / "00" / "folder.png").mkdir()
    os.mkfifo(folder / "00" / "pipe.png")
    (folder / "00" / "-rf\n.png").write_bytes((folder / "00" / "0.png").read_bytes())


READ: dict[str, Write] = {"loops": _loops, "web": _web, "animated": _animated, "special files": _special}
