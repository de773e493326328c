"Files that are no images, or not whole ones."
import functools
import zipfile
import zlib
from collections.abc import Callable

from ptl_nb.data import decode, pixels
from ptl_nb.domains import load_domain

from bad_inputs.catalogue import Case, add, put_content
from bad_inputs.made import chunk, encoded, png
from test_domains import csv

CASES: list[Case] = []
bad = functools.partial(add, CASES)


def image_file(content: bytes | Callable, name: str = "a.jpg") -> Callable:
    "Decoding a file with this content."
    def make(folder):
        put_content(folder / name, content)
        return lambda: decode(folder / name, (8, 4))
    return make


REPLACE = ("cannot decode the image", "a.jpg", "replace the file or take it out")
for name, content in {
    "text named .jpg": b"no image at all", "empty": b"", "JPEG cut in half": encoded("JPEG")[:900],
    "JPEG header only": encoded("JPEG")[:20],
    "PNG cut off": encoded("PNG")[:3000], "PNG without pixels": png(4, 8),
    "PNG with a broken checksum": encoded("PNG").replace(b"IHDR", b"IHDX", 1),
    "PNG of 60,000 x 60,000 (a bomb)": png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(100)))),
    "PNG with a text chunk that unpacks to 70 MB": png(
        4, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(70 << 20), 1))),
    "PNG with broken zlib data": png(4, 8, chunk(b"IDAT", b"not zlib data")),
    "PNG of a bit depth that is none": png(4, 8, depth=7),
    "WebP cut off": encoded("WEBP")[:200], "BMP cut off": encoded("BMP")[:500], "TIFF cut off": encoded("TIFF")[:300],
    "TIFF with a directory outside the file": b"II*\0\xff\xff\xff\x7f", "GIF header only": b"GIF89a\x04\0\x08\0",
    "a zip archive": zipfile.ZipFile and b"PK\x03\x04" + bytes(30),
    "a folder": lambda file: file.mkdir(),
}.items():
    bad("image", name, image_file(content), *REPLACE)
for name, content in {
    "missing": lambda file: None, "a link to nothing": lambda file: file.symlink_to(file.parent / "gone.jpg")}.items():
    bad("image", name, image_file(content), "no image", "a.jpg", "extract the data set again", error=FileNotFoundError)


def one_broken(folder):
    domain = load_domain(csv(folder))
    (folder / "crops" / "1.jpg").write_bytes(b"x")
    return lambda: pixels(domain, "train", (8, 4), folder / "cache")


bad("image", "one of a domain's", one_broken, "cannot decode the image", "crops/1.jpg", "replace the file")
