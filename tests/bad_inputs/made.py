"Files and arrays that several areas damage."
import atexit
import functools
import io
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ptl_nb import densepose, peta, rap

SMALL = dict(backbone_name="mini")              # of a network
PIXELS = np.zeros((6, 8, 4, 3), np.uint8)


# images

def encoded(form: str, size=(40, 80), **options) -> bytes:
    "A noisy picture as a file of this form."
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    "A PNG of a given header and no pixels."
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


BROKEN_MAPS = {
    "empty": b"", "text": b"no image", "cut off": encoded("PNG")[:200], "without pixels": png(4, 8),
    "a bomb": png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(100)))),
    "a text chunk that unpacks to 70 MB": png(4, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(70 << 20), 1))),
    "broken zlib data": png(4, 8, chunk(b"IDAT", b"not zlib data"))}


# label data in its published forms

TRAIN = densepose.DP_FILE.format("train")
V73 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(400)


@functools.lru_cache(maxsize=None)
def written(form: str) -> Path:
    "A few persons of a label stand-in in one of the published forms, kept until the process ends."
    folder = Path(tempfile.mkdtemp(prefix="ptl-bad-inputs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    writers = {
        "densepose": densepose.export_densepose, "peta": peta.export_peta_tree,
        "peta-mat": peta.export_peta_mat, "rap": rap.export_rap,
        "rap1": functools.partial(rap.export_rap, version=1)}
    return writers[form](folder / form, limit=12 if form != "peta" else 20)


READERS = {
    "densepose": densepose.read_densepose, "peta": peta.read_peta_tree, "peta-mat": peta.read_peta_mat,
    "rap": rap.read_rap, "rap1": rap.read_rap}
MATS = {
    "peta-mat": ("peta", "PETA.mat"), "rap": ("RAP_annotation", "RAP_annotation/RAP_annotation.mat"),
    "rap1": ("RAP_annotation", "RAP_annotation/RAP_annotation.mat")}


def damaged(form: str, damage: Callable, **options) -> Callable:
    "A label dataset, damaged, then read."
    def make(folder):
        shutil.copytree(written(form), folder / form)
        damage(folder / form)
        return lambda: READERS[form](folder / form, **options)
    return make


# a stand-in's archive

def grey_png() -> bytes:
    out = io.BytesIO()
    Image.new("L", (4, 8)).save(out, "PNG")
    return out.getvalue()


PARTS_PNG = grey_png()
TRUTH = {
    "truth/parts.png": PARTS_PNG, "truth/attributes.csv": b"path,hat=no,hat=yes\na.jpg,0,1\n",
    "a.jpg": encoded("JPEG")}
