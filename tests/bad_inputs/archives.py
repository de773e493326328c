"Archives of stand-ins."
import functools
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from ptl_nb import standins

from bad_inputs.catalogue import Case, add, call
from bad_inputs.made import PARTS_PNG, TRUTH, chunk, png
from test_domains import touch

CASES: list[Case] = []
bad = functools.partial(add, CASES)


def archive(members: dict[str, bytes] | bytes | Callable, **options) -> Callable:
    "An archive with these members, unpacked."
    def make(folder):
        file = folder / "evil.zip"
        if callable(members): members(file)
        elif isinstance(members, bytes): file.write_bytes(members)
        else:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
                for name, content in members.items(): z.writestr(name, content)
        return functools.partial(standins.extract_archive, file, folder / "out" / "in")
    return make


def lying(file):
    "A member that unpacks to more than its header says."
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z: z.writestr("a.jpg", bytes(10_000_000))
    content = bytearray(file.read_bytes())
    for at in (22, content.rfind(b"PK\x01\x02") + 24): content[at:at + 4] = struct.pack("<I", 100)
    file.write_bytes(content)


def with_flag(file):
    "A member marked as encrypted."
    with zipfile.ZipFile(file, "w") as z: z.writestr("a.jpg", b"x")
    content = bytearray(file.read_bytes())
    for at in (6, content.rfind(b"PK\x01\x02") + 8): content[at] |= 1
    file.write_bytes(content)


def with_method(file):
    "A member packed by a method that nobody knows."
    with zipfile.ZipFile(file, "w") as z: z.writestr("a.jpg", b"x")
    content = bytearray(file.read_bytes())
    for at in (8, content.rfind(b"PK\x01\x02") + 10): content[at:at + 2] = struct.pack("<H", 77)
    file.write_bytes(content)


def many(file):
    with zipfile.ZipFile(file, "w") as z:
        for i in range(20_001): z.writestr(f"{i}", b"")


def symlink(file):
    with zipfile.ZipFile(file, "w") as z:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        z.writestr(info, "../../..")


LEAVES = ("evil.zip", "would leave the folder")
OURS = "reinstall ptl_nb"
for name, members, *words in [
    ("a member that climbs", {"../../evil.txt": b"x"}, *LEAVES, "'../../evil.txt'"),
    ("a member that climbs later", {"a/../../../evil.txt": b"x"}, *LEAVES),
    ("an absolute member", {"/etc/evil": b"x"}, *LEAVES),
    ("a backslash", {"..\\evil.txt": b"x"}, *LEAVES),
    ("a drive", {"C:/evil.txt": b"x"}, *LEAVES),
    ("a link", symlink, "evil.zip", "'link'", "link"),
    ("a bomb of 300 MB", {"a.jpg": bytes(300 << 20)}, "evil.zip", "over the limit of"),
    ("20,001 members", many, "evil.zip", "20,001 members", "over the limit of"),
    ("a size that lies", lying, "evil.zip", "cannot be unpacked"),
    ("an encrypted member", with_flag, "evil.zip", "cannot be unpacked"),
    ("an unknown method", with_method, "evil.zip", "cannot be unpacked"),
    ("text", b"no archive", "evil.zip", "cannot be unpacked"),
    ("empty", b"", "evil.zip", "cannot be unpacked"),
    ("a file where a folder is needed", {"truth": b"x", "truth/attributes.csv": b"path\n"}, "evil.zip",
     "cannot be unpacked"),
    ("a name of 300 letters", {"x" * 300: b"x"}, "evil.zip", "300 letters"),
    ("no truth", {"a.jpg": b"x"}, "evil.zip", "truth/attributes.csv"),
    ("part maps cut off", TRUTH | {"truth/parts.png": PARTS_PNG[:40]}, "evil.zip", "truth/parts.png"),
    ("part maps of other images", TRUTH | {"truth/attributes.csv": b"path\na.jpg\nb.jpg\nc.jpg\n"}, "evil.zip",
     "truth/parts.png"),
    ("a table whose paths climb", TRUTH | {"truth/attributes.csv": b"path\n../../../../evil.jpg\n"}, "evil.zip",
     "'../../../../evil.jpg'"),
    ("a table whose paths are absolute", TRUTH | {"truth/attributes.csv": b"path\n/etc/evil.jpg\n"}, "evil.zip",
     "'/etc/evil.jpg'"),
    ("a table that is no text", TRUTH | {"truth/attributes.csv": b"path\n\xff\n"}, "evil.zip", "truth/attributes.csv"),
    ("no images", TRUTH | {"truth/attributes.csv": b"path\n"}, "evil.zip", "truth/attributes.csv"),
    ("a bomb of part maps", TRUTH | {"truth/parts.png": png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(100))))},
     "evil.zip", "truth/parts.png"),
]:
    bad("archive", name, archive(members), *words, OURS)
bad(
    "archive", "another hash", lambda f: functools.partial(standins.verify, touch(f / "a.png"), "0" * 64),
    "a.png is not the frozen archive", "pinned is 000", OURS)
bad(
    "archive", "not there", lambda f: functools.partial(standins.verify, f / "a.zip", "0" * 64),
    "a.zip is missing from the package", OURS, error=FileNotFoundError)
bad(
    "archive", "an unknown stand-in", call(standins.unpack, "plazza"), "there is no stand-in 'plazza'",
    "did you mean 'plaza'")
bad("archive", "a stand-in's name that is a path", call(standins.unpack, "../plaza"), "there is no stand-in '../plaza'")
bad(
    "archive", "exported over something",
    lambda f: functools.partial(standins.export_layout, "plaza", touch(f / "Market-1501-v15.09.15/a.png").parents[1]),
    "exists and is not empty", "name another folder")
bad(
    "array", "an archive of nothing",
    lambda f: functools.partial(standins.write_archive, f / "a.zip", {}, {}, np.zeros((0, 8, 4), np.uint8), []),
    "no images to write")
