"""Packaging: every value comes from settings.ini, which nbdev reads too."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
EXTRAS = "notebooks", "labels", "render", "search", "engine", "export", "video", "launch", "multi", "backbones"
extras = {name: cfg[f"{name}_requirements"].split() for name in ("dev", *EXTRAS)}
ALONE = {"pose": cfg["pose_requirements"].split()}     # not in dev, nor locked: no test needs it

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    packages=find_packages(include=["ptl_nb", "ptl_nb.*"]),
    package_data={"ptl_nb": ["standin_data/*", "start_data/*", "start_data/labels/*", "published.csv",
                             "paper.csv"]},
    python_requires=f'>={cfg["min_python"]}',
    install_requires=cfg["requirements"].split(),
    extras_require={"dev": sum(extras.values(), []), **{name: extras[name] for name in EXTRAS}, **ALONE},
    entry_points={"nbdev": [f'{cfg["lib_name"]}={cfg["lib_path"]}._modidx:d'],
                  "console_scripts": cfg["console_scripts"].split()},
    zip_safe=False,
)
