"""Parts from joints: the rule against a plain loop, doubts, the view, the wheel, labels of a domain; all but the
runtime itself on saved answers."""
import hashlib
import importlib.util
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, refusal

from ptl_nb import pose, shipped_labels
from ptl_nb.domains import load_domain
from ptl_nb.label_runs import (
    ImportedLabels, JoinedLabels, labelled_paths, read_confidence, read_reasons, true_labels, write_confidence)
from ptl_nb.label_scores import SURE, doubtful
from ptl_nb.labels import PARTS, part_iou, read_attributes, read_parts, read_provenance, write_attributes
from ptl_nb.pose import PoseParts, body_capsules, find_wheel, joint_parts, pose_doubts, pose_measures, view_of
from ptl_nb.shipped_labels import PoseLabels, ShippedLabels
from ptl_nb.standins import truth_store
from ptl_nb.store import Store

RUNTIME = importlib.util.find_spec("ai_edge_litert") is not None
WHERE = pose.wheel_folder()
needs_model = pytest.mark.skipif(
    not RUNTIME or not list(WHERE.glob(f"{pose.WHEEL}-*.whl")),
    reason=f"the runtime needs the extra pose and the wheel {pose.WHEEL} in the cache folder's wheels/")


@pytest.fixture(scope="module")
def saved() -> dict:
    kept = dict(np.load(ROOT / "tests/pose_standins.npz", allow_pickle=False))
    kept["joints"] = kept["joints"].astype(np.float32)
    kept["mask"] = np.unpackbits(kept["mask"], axis=2).astype(bool)
    return kept


def loop_parts(joints: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:     # of one person
    "The rule as it is written: pixel by pixel, limb by limb."
    body = body_capsules(joints[None])
    out, reach = np.zeros(mask.shape, np.uint8), np.full(mask.shape, np.inf)
    for y, x in zip(*np.nonzero(mask)):
        seen, others = [], []
        for limb, part in enumerate(body.part):
            (ax, ay, az), (bx, by, bz) = body.ends[0, :, limb].astype(float)
            r, q = body.radii[0, :, limb].astype(float)
            dx, dy = bx - ax, by - ay
            t = min(max(((x + .5 - ax) * dx + (y + .5 - ay) * dy) / max(dx * dx + dy * dy, 1e-6), 0), 1)
            radius = r + t * (q - r)
            n = np.hypot(x + .5 - ax - t * dx, y + .5 - ay - t * dy) / radius
            if n < 1: seen.append(((az + t * (bz - az)) / 3 - 2.2 * radius * np.sqrt(1 - n * n), part))
            others.append((n, part))
        reach[y, x] = min(others)[0]
        out[y, x] = min(seen)[1] if seen else 0 if reach[y, x] > 4 else min(others)[1]
    return out, reach


def test_the_rule_equals_a_plain_loop(saved):
    some, sparse = [0, 45, 100], np.zeros((3, 128, 64), bool)
    sparse[:, ::3, ::2] = saved["mask"][some, ::3, ::2]
    maps, reach = joint_parts(saved["joints"][some], sparse)
    for k, row in enumerate(some):
        expected, far = loop_parts(saved["joints"][row], sparse[k])
        assert (maps[k] != expected).sum() <= 2      # ties in single precision
        assert np.allclose(reach[k], far, rtol=1e-3)
    assert set(np.unique(maps)) == set(range(len(PARTS)))


def test_people_do_not_depend_on_one_another(saved):
    maps, reach = joint_parts(saved["joints"][:6], saved["mask"][:6])
    alone, far = joint_parts(saved["joints"][4:5], saved["mask"][4:5])
    assert (alone[0] == maps[4]).all() and (far[0] == reach[4]).all()
    none = joint_parts(saved["joints"][:2], np.zeros((2, 128, 64), bool))
    assert not none[0].any() and np.isinf(none[1]).all()
    assert joint_parts(saved["joints"][:0], saved["mask"][:0])[0].shape == (0, 128, 64)


def test_a_map_grows_with_its_crop(saved):
    "Everything scales with the torso: twice the pixels, the same map."
    twice = saved["joints"][:8, :, :3] * 2, saved["mask"][:8].repeat(2, 1).repeat(2, 2)
    small, large = joint_parts(saved["joints"][:8], saved["mask"][:8])[0], joint_parts(*twice)[0]
    assert (large[:, ::2, ::2] == small).mean() > .98


def test_left_and_right_are_alike(saved):
    joints, mask = saved["joints"][:20], saved["mask"][:20]
    swap = np.r_[0, 4:7, 1:4, 8, 7, 10, 9, np.arange(11, 33).reshape(-1, 2)[:, ::-1].ravel()]
    mirrored = joints[:, swap] * [-1, 1, 1, 1] + [64, 0, 0, 0]
    assert (joint_parts(mirrored, mask[..., ::-1])[0][..., ::-1] == joint_parts(joints, mask)[0]).mean() > .999
    here, there = view_of(joints), view_of(mirrored)
    assert np.allclose(here.yaw, -there.yaw, atol=.1) and (here["view"] == there["view"]).all()


def test_better_than_the_nearest_bone(saved):
    "On every stand-in whose images set no constant; arms, where depth decides, by the most."
    people = saved["kind"] == "person"
    gains = []
    for name in ("plaza", "campus", "corridor"):
        rows = np.flatnonzero(people & (saved["domain"] == name))
        joints, mask = saved["joints"][rows], saved["mask"][rows]
        truth = read_parts(truth_store(name), list(saved["first"][rows]), (128, 64))
        body, pixels = body_capsules(joints), np.stack(np.meshgrid(np.arange(64) + .5, np.arange(128) + .5), -1)
        far = []
        for limb in range(len(body.part)):
            a, b = body.ends[:, :, limb, None, None, :2].transpose(1, 0, 2, 3, 4)
            t = (((pixels - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1).clip(1e-6)).clip(0, 1)
            far.append(np.linalg.norm(pixels - a - t[..., None] * (b - a), axis=-1))
        bone = body.part[np.argmin(far, axis=0)] * mask
        gains.append(part_iou(joint_parts(joints, mask)[0], truth) - part_iou(bone, truth))
    assert all(g["mean"] > 0 for g in gains)
    assert np.mean([g["upper arm"] for g in gains]) > .05


def test_bad_joints_are_refused():
    with pytest.raises(ValueError, match=r"joints of shape \(2, 17, 3\): expected \(N, 33, 3\)"):
        body_capsules(np.zeros((2, 17, 3)))


# doubts

def test_each_doubt_has_its_reason(saved):
    rows = [0]
    joints, mask = saved["joints"][rows], saved["mask"][rows].astype(np.float32)
    def said(mask, joints=joints):
        sure, reasons = pose_doubts(pose_measures(joints, mask, joint_parts(joints, mask > .5)[1]))
        assert (sure[0] < SURE) == bool(reasons[0])
        return sure[0], reasons[0]

    assert said(mask)[1] == "" and said(mask)[0] > SURE
    assert said(mask * 0) == (0, "no person")
    assert "mask undecided" in said(np.where(mask > .5, .6, .4).astype(np.float32))[1]
    cut = mask.copy()
    cut[:, 55:75] = 0
    assert "mask in pieces" in said(cut)[1]
    assert "joints outside mask" in said(mask, joints + [0, 40, 0, 0])[1]
    assert "mask beyond body" in said(np.ones_like(mask))[1]
    assert "person aside" in said(np.roll(mask, 20, 2) * (np.arange(64) > 20), joints + [20, 0, 0, 0])[1]


def test_doubts_name_bad_maps_crowds_and_empty_crops(saved):
    kind = saved["kind"]
    maps, reach = joint_parts(saved["joints"], saved["mask"])
    measures = pose_measures(saved["joints"], saved["mask"].astype(np.float32), reach)
    sure = pose_doubts(measures.assign(decided=saved["decided"].astype(float)))[0]
    assert (sure[kind == "person"] < SURE).mean() < .3
    assert (sure[kind == "two"] < SURE).mean() > .8 and (sure[kind == "nobody"] < SURE).mean() > .8


def test_reasons_are_kept_and_listed(tmp_path):
    write_confidence(tmp_path, ["a.jpg", "001.jpg"], [.9, .2], ["", "mask undecided; person aside"])
    assert read_confidence(tmp_path, ["001.jpg", "b.jpg"])[0] == .2
    assert read_reasons(tmp_path, ["001.jpg", "b.jpg"]).tolist() == ["mask undecided; person aside", ""]
    maps = np.tile(np.arange(8, dtype=np.uint8), (2, 4, 1))
    listed = doubtful(["a.jpg", "001.jpg"], maps, sure=[.9, .2], why=read_reasons(tmp_path, ["a.jpg", "001.jpg"]))
    assert listed.reason.tolist() == ["parts unsure (0.20): mask undecided, person aside"]
    with pytest.raises(ValueError, match="one text for each"):
        doubtful(["a.jpg", "001.jpg"], maps, sure=[.9, .2], why=[""])
    write_confidence(tmp_path, ["a.jpg"], [.9])
    assert read_reasons(tmp_path, ["a.jpg"]) is None and read_reasons(tmp_path / "none", ["a.jpg"]) is None


def test_views_follow_the_true_yaw(saved):
    rows = np.flatnonzero(saved["kind"] == "person")
    yaw = np.concatenate([pd.read_csv(truth_store(d) / "shots.csv", index_col="path").yaw[[p]]
                          for d, p in zip(saved["domain"][rows], saved["first"][rows])])
    seen = view_of(saved["joints"][rows])
    assert np.median(np.abs((seen.yaw - yaw + 180) % 360 - 180)) < 25
    yaw = np.abs((yaw + 180) % 360 - 180)
    right = seen["view"] == np.select([yaw < 45, yaw > 135], ["front", "back"], "side")
    unsure = seen.sure.rank(pct=True) <= .25
    assert right.mean() > .7 and right[unsure].mean() < right[~unsure].mean() - .1


@pytest.mark.parametrize("yaw", range(-180, 180, 15))
def test_the_view_of_a_turned_figure(yaw):
    a = np.deg2rad(yaw)
    flat = np.zeros((33, 2))      # x to the figure's left, z behind it
    flat[[11, 23, 7], 0], flat[[12, 24, 8], 0], flat[0, 1] = 1, -1, -1
    joints = np.zeros((1, 33, 3))
    joints[0, :, 0] = flat[:, 0] * np.cos(a) - flat[:, 1] * np.sin(a)
    joints[0, :, 2] = flat[:, 0] * np.sin(a) + flat[:, 1] * np.cos(a)
    seen = view_of(joints)
    assert abs((seen.yaw[0] - yaw + 180) % 360 - 180) < 1e-6
    assert abs(seen.sure[0] - min(1, abs(abs(yaw) % 90 - 45) / 30)) < 1e-6
    if abs(yaw) % 90 == 45: return      # on the border
    assert seen["view"][0] == ("front" if abs(yaw) < 45 else "back" if abs(yaw) > 135 else "side")


# the wheel

def made_wheel(folder: Path, content: bytes, name: str = f"{pose.WHEEL}-cp312-cp312-win_amd64.whl") -> Path:
    with zipfile.ZipFile(folder / name, "w") as z: z.writestr(pose._MEMBER, content)
    return folder / name


COMMAND = r"pip download --no-deps --only-binary :all: .* mediapipe==0.10.21 -d '"


def test_wheels_that_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=COMMAND): find_wheel(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=COMMAND): find_wheel(tmp_path / f"{pose.WHEEL}-none.whl")
    other = made_wheel(tmp_path, b"", "mediapipe-0.10.14-cp311-cp311-win_amd64.whl")
    with pytest.raises(FileNotFoundError, match="there is mediapipe-0.10.14.*" + COMMAND): find_wheel(tmp_path)
    with pytest.raises(ValueError, match="mediapipe-0.10.14-cp311-cp311-win_amd64.whl is not a wheel of.*" + COMMAND):
        find_wheel(other)
    wheel = made_wheel(tmp_path, b"x" * pose._BYTES)
    assert find_wheel(tmp_path) == find_wheel(wheel) == wheel
    with pytest.raises(ValueError, match="has the SHA-256 .*delete the wheel and.*" + COMMAND): pose.pose_file(wheel)
    with pytest.raises(ValueError, match="has 3 bytes.*" + COMMAND): pose.pose_file(made_wheel(tmp_path, b"abc"))
    wheel.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="cannot be read.*" + COMMAND): pose.pose_file(wheel)
    with zipfile.ZipFile(wheel, "w") as z: z.writestr("other", b"")
    with pytest.raises(ValueError, match="cannot be read.*" + COMMAND): pose.pose_file(wheel)


def test_the_file_of_any_platform_is_taken_by_its_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(pose, "_BYTES", 5)
    monkeypatch.setattr(pose, "POSE_SHA256", hashlib.sha256(b"model").hexdigest())
    for tag in ("cp39-cp39-macosx_11_0_universal2", "cp312-cp312-win_amd64"):
        assert pose.pose_file(made_wheel(tmp_path, b"model", f"{pose.WHEEL}-{tag}.whl")) == b"model"


def test_without_the_extra_its_name_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match=r"pip install 'ptl_nb\[pose\]'"): pose.pose_model(tmp_path)
    assert "ptl_nb[pose]" in refusal("label", "domain=corridor", "parts_by=pose").says


def test_parameters_that_are_refused():
    wrong = refusal("label", "domain=corridor", "parts_by=posse")
    assert "parts_by is 'posse'; it is one of attributes, pose" in wrong.says
    both = refusal("label", "domain=corridor", "parts_by=pose", f"parts_from={ROOT / 'tests'}")
    assert "give one of the two" in both.says and not both.runs


def test_pixels_of_another_form_are_refused():
    with pytest.raises(ValueError, match=r"pixels are float64 of shape \(1, 8, 4, 3\)"):
        pose.pose_parts(np.zeros((1, 8, 4, 3)), None)


# labels of a domain

@pytest.fixture
def small(monkeypatch):
    "24 images, and a pose model in whose place their truth answers; in pieces of 10 images."
    domain = load_domain("corridor", origin="standin")
    domain = replace(domain, train=domain.train.iloc[:24])
    maps, asked = read_parts(truth_store("corridor"), domain.train.path, (128, 64)), []
    def answer(x, model):
        start = 10 * (len(asked) % 3)
        asked.append(len(x))
        sure = np.where(np.arange(len(x)) == 0, .5, .9)
        return PoseParts(maps[start:start + len(x)], sure, ["mask in pieces", *[""] * (len(x) - 1)], None)
    monkeypatch.setattr(shipped_labels, "pose_model", lambda *a: None)
    monkeypatch.setattr(shipped_labels, "pose_parts", answer)
    monkeypatch.setattr(shipped_labels, "CHUNK", 10)
    return domain, maps, asked


def test_parts_by_pose_attributes_by_the_labeller(small, tmp_path):
    domain, maps, asked = small
    store = Store(tmp_path, progress=False)
    pose_run = store.make(PoseLabels(domain))
    assert asked == [10, 10, 4] and store.make(PoseLabels(domain)) == pose_run and len(asked) == 3
    labels = store.make(JoinedLabels(domain, pose_run, store.make(ShippedLabels(domain))))
    paths = list(domain.train.path)
    assert (read_parts(labels, paths, (128, 64)) == maps).all()
    found = labelled_paths(labels, domain)
    assert found["parts"] == found["attributes"] == paths
    told = read_provenance(labels)
    assert told["parts"]["predicted_by"] == "the pose model of mediapipe-0.10.21"
    assert told["parts"]["weights"] == pose.POSE_SHA256
    assert told["attributes"]["predicted_by"].startswith("the labeller that ships")
    assert (read_confidence(labels, paths) < SURE).sum() == 3
    assert np.flatnonzero(read_reasons(labels, paths) == "mask in pieces").tolist() == [0, 10, 20]


def test_a_killed_run_goes_on(small, tmp_path, monkeypatch):
    domain, maps, asked = small
    whole = Store(tmp_path / "whole", progress=False).make(PoseLabels(domain))
    del asked[:]
    answer = shipped_labels.pose_parts
    def dies(x, model):
        if len(asked) == 2: raise KeyboardInterrupt
        return answer(x, model)
    monkeypatch.setattr(shipped_labels, "pose_parts", dies)
    store = Store(tmp_path / "killed", progress=False)
    with pytest.raises(KeyboardInterrupt): store.make(PoseLabels(domain))
    monkeypatch.setattr(shipped_labels, "pose_parts", answer)
    again = store.make(PoseLabels(domain))
    assert asked == [10, 10, 4], "a piece was asked for twice"
    for file in ("confidence.csv", *(f"parts/{Path(p).with_suffix('.png')}" for p in domain.train.path)):
        assert (again / file).read_bytes() == (whole / file).read_bytes()


def test_imported_attributes_keep_their_coverage(small, tmp_path):
    domain, maps, _ = small
    store, paths = Store(tmp_path / "runs", progress=False), list(domain.train.path)
    pd.DataFrame({"path": paths[:20], "hat": .75}).to_csv(tmp_path / "their.csv", index=False)
    attributes = store.make(ImportedLabels(domain, attributes_from=tmp_path / "their.csv"))
    labels = store.make(JoinedLabels(domain, store.make(PoseLabels(domain)), attributes))
    assert len(labelled_paths(labels, domain)["attributes"]) == 20
    assert '"labelled": 20' in (labels / "run.json").read_text()


# the runtime

@needs_model
def test_the_model_answers_as_it_did(saved):
    from ptl_nb.data import decode
    rows = np.flatnonzero(saved["kind"] == "person")[::10]
    files = [truth_store(d).parent / p for d, p in zip(saved["domain"][rows], saved["first"][rows])]
    images = np.stack([decode(file, (128, 64)) for file in files])
    made = pose.pose_parts(images, pose.pose_model(), size=5)
    assert np.abs(made.joints - saved["joints"][rows])[..., :2].max() < .2
    assert (made.maps == joint_parts(saved["joints"][rows], saved["mask"][rows])[0]).mean() > .995
    assert pose.pose_parts(images[:0], pose.pose_model()).maps.shape == (0, 128, 64)


@needs_model
def test_a_grey_wall_is_nobody():
    made = pose.pose_parts(np.full((1, 128, 64, 3), 120, np.uint8), pose.pose_model())
    assert made.confidence[0] < SURE and made.reasons[0]
