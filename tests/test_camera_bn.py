"""BN statistics of each camera against loops by hand: estimated, stored, read back, scored, searched."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import outputs, smoke_run
from torch import nn

from ptl_nb.camera_bn import CameraNet, bn_statistics, camera_features, camera_names, estimate_cameras, own_camids
from ptl_nb.checkpoint import save_trained
from ptl_nb.data import batches, pixels
from ptl_nb.deploy import load_deploy
from ptl_nb.domains import load_domain
from ptl_nb.evaluator import evaluate, extract, reestimate_bn
from ptl_nb.explanation import match_maps
from ptl_nb.export import export_onnx, write_model
from ptl_nb.gallery import build_index, index_files, model_hash
from ptl_nb.methods import parse_method, parse_methods
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES
from ptl_nb.runs import score_model, score_net, scored_network
from ptl_nb.search import search
from ptl_nb.store import Store, code_hash

RECIPE = replace(RECIPES["smoke"], precision="fp32")
CAMERAS = (70, 100, 66, 1, 21)       # images of cameras 1 to 5


def network(seed: int = 0) -> PTLNet:
    torch.manual_seed(seed)
    return PTLNet(8, backbone_name="mini").eval()


@pytest.fixture
def images() -> np.ndarray:
    "Noise of another brightness for each camera, in a random order."
    rng = np.random.default_rng(1)
    dark = np.repeat(np.arange(1, 6), CAMERAS)[:, None, None, None]
    return (rng.integers(0, 256, (sum(CAMERAS), 32, 16, 3)) // dark).astype(np.uint8)[order()]


@pytest.fixture
def camids() -> np.ndarray: return np.repeat(np.arange(1, 6), CAMERAS)[order()]
def order() -> np.ndarray: return np.random.default_rng(2).permutation(sum(CAMERAS))


def by_hand(net: PTLNet, images: np.ndarray, size: int) -> dict[str, torch.Tensor]:
    "Each batch in train mode with momentum 1, its statistics weighed by its images."
    layers = {name: m for name, m in net.named_modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))}
    for m in layers.values(): m.momentum = 1
    total = {name: 0. for name in bn_statistics(net)}
    with torch.no_grad():
        for x in batches(images[np.random.default_rng(0).permutation(len(images))], size):
            net.train().embed(x)
            for name, value in bn_statistics(net).items(): total[name] = total[name] + value.double() * len(x)
    return {name: (value / len(images)).float() for name, value in total.items()}


@pytest.mark.parametrize("size", [128, 64, 30])       # one batch of each camera, or several, the last one smaller
def test_statistics_are_those_of_the_cameras_images(images, camids, size):
    made = estimate_cameras(network(), images, camids, size, "fp32")
    assert [*made.cameras] == [1, 2, 3]
    for camid, found in [*made.cameras.items(), (None, bn_statistics(made.net))]:
        expected = by_hand(network(), images if camid is None else images[camids == camid], size)
        for name in expected: torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_the_floor_counts_images(images, camids):
    for fewest, known in ((2, [1, 2, 3, 5]), (21, [1, 2, 3, 5]), (22, [1, 2, 3]), (66, [1, 2, 3]), (67, [1, 2])):
        assert [*estimate_cameras(network(), images, camids, 64, "fp32", fewest=fewest).cameras] == known
    with pytest.warns(UserWarning, match=r"no camera of the target has 101 training images \(the most: 100\)"):
        none = estimate_cameras(network(), images, camids, 64, "fp32", fewest=101)
    assert not none.cameras and same(none.of(1), bn_target(images))
    with pytest.warns(UserWarning, match="the most: 0"):       # cameras are not known
        assert not estimate_cameras(network(), images, camids * 0, 64, "fp32").cameras


def bn_target(images: np.ndarray) -> PTLNet:
    net = network()
    reestimate_bn(net, images, 64, "fp32")
    return net


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_cameras_with_few_images_and_unknown_ones_take_the_statistics_of_all(images, camids):
    made = estimate_cameras(network(), images, camids, 64, "fp32")
    for camid in (4, 5, 9, 0, None): assert same(made.of(camid), bn_target(images))
    assert not same(made.of(1), bn_target(images))
    assert np.array_equal(own_camids(made, [0, 9, 3, 4, 1]), [0, 0, 3, 0, 1])


def test_one_camera_only_is_bn_target(images):
    made = estimate_cameras(network(), images, np.full(len(images), 7), 64, "fp32")
    assert same(made.of(7), bn_target(images)) and same(made.of(), bn_target(images))
    x = images[:9]
    assert np.array_equal(camera_features(made, x, np.full(9, 7), precision="fp32"),
                          extract(bn_target(images), x, "fp32"))


def test_weights_are_shared_and_statistics_are_not(images, camids):
    made = estimate_cameras(network(), images, camids, 64, "fp32")
    one, other = made.of(1), made.of(2)
    for a, b in zip(one.parameters(), other.parameters()): assert a is b
    one.train().embed(next(iter(batches(images[:8], 8))))           # moves the buffers of this one only
    assert same(other, made.of(2)) and not same(one, made.of(1)) and same(made.of(), bn_target(images))


def test_features_are_those_of_a_loop_over_images(images, camids):
    made = estimate_cameras(network(), images, camids, 64, "fp32")
    loop = np.concatenate([extract(made.of(int(c)), x[None], "fp32") for x, c in zip(images, camids)])
    np.testing.assert_allclose(camera_features(made, images, camids, precision="fp32"), loop, atol=2e-6)
    assert np.abs(extract(made.of(), images, "fp32") - loop).max() > 0.01
    plain = network()
    assert np.array_equal(camera_features(plain, images, camids, precision="fp32"), extract(plain, images, "fp32"))
    assert camera_features(made, images[:0], camids[:0]).shape == (0, loop.shape[1])


def test_cameras_go_by_their_names(images, camids):
    made = estimate_cameras(network(), images, camids, 64, "fp32")
    made.names = {1: "door", 2: "till", 3: "yard", 4: "gate"}
    there = {1: "till", 2: "lift", 3: "door", 9: "gate"}            # gate has no statistics
    assert np.array_equal(own_camids(made, [1, 2, 3, 9, 0], there), [2, 0, 1, 0, 0])
    expected = camera_features(made, images[:2], np.array([2, 0]), precision="fp32")
    assert np.array_equal(camera_features(made, images[:2], np.array([1, 2]), there, "fp32"), expected)


@pytest.mark.parametrize("name, words", [
    ("BL+BN^t+BN^c", "'BN^c'"), ("BL+BN^c+BN^t", "nothing goes on from BN^c"),
    ("PTL+BN^c+SSG†", "take BN^t before"), ("BL+SSG+BN^c", "'SSG'"), ("BL+BN^c+HP^t", "'BN^c'")])
def test_names_that_are_none(name, words):
    with pytest.raises(ValueError) as error: parse_method(name)
    assert words in str(error.value) and "SSG" in str(error.value)


def test_names():
    rows = parse_methods("PTL, PTL+BN^t, PTL+BN^c")
    assert [m.name for m in rows] == ["PTL", "PTL+BN^t", "PTL+BN^c"] and len({m.trained for m in rows}) == 1
    with pytest.raises(ValueError, match="named twice"): parse_methods("PTL+BN^c, BL+Attr^t+HP^t+BN^c")


@pytest.fixture(scope="module")
def campus(): return load_domain("campus")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "run"
    folder.mkdir()
    save_trained(network(), folder)
    return folder


@pytest.fixture(scope="module")
def deployed(run, campus) -> CameraNet:
    return scored_network(Store(run.parent, progress=False), RECIPE, run, campus, parse_method("BL+BN^c"))


def test_a_domain_is_scored_camera_by_camera(run, campus, deployed):
    store = Store(run.parent, progress=False)
    assert [*deployed.cameras] == list(range(1, 9)) and deployed.names == camera_names(campus)
    features = {}
    for split in ("query", "gallery"):
        table, x = getattr(campus, split), pixels(campus, split, RECIPE.size)
        features[split] = np.empty((len(x), 192), np.float32)
        for camid in table.camid.unique():
            net = network()
            train = pixels(campus, "train", RECIPE.size)[(campus.train.camid == camid).to_numpy()]
            reestimate_bn(net, train, RECIPE.bn_batch, "fp32")
            rows = (table.camid == camid).to_numpy()
            features[split][rows] = extract(net, x[rows], "fp32")
    q, g = campus.query, campus.gallery
    loop = evaluate(features["query"], features["gallery"], q.pid, g.pid, q.camid, g.camid)
    scores = {name: score_model(store, RECIPE, run, campus, parse_method(name))
              for name in ("BL", "BL+BN^t", "BL+BN^c")}
    np.testing.assert_array_equal(scores["BL+BN^c"].ap, loop.ap)
    assert len({s.mAP for s in scores.values()}) == 3
    files = sorted(f.name.rsplit("-", 2)[1:] for f in run.glob("scores-*BN*"))
    assert files == [["BNc64", f"{code_hash('camera_bn')}.npz"], ["BNt64", f"{code_hash('evaluator')}.npz"]]
    again = score_model(store, RECIPE, run, campus, parse_method("BL+BN^c"))
    np.testing.assert_array_equal(again.ap, loop.ap)


def test_another_domain_is_seen_with_the_statistics_of_all(deployed):
    plaza = load_domain("plaza")             # it has cameras 1 to 6 as well
    np.testing.assert_array_equal(score_net(deployed, RECIPE, plaza, "cpu").ap,
                                  score_net(deployed.of(), RECIPE, plaza, "cpu").ap)


def test_written_and_read_back(deployed, campus, tmp_path):
    told = write_model(deployed, RECIPE, tmp_path / "model")
    assert told["cameras"] == {str(c): f"campus {c}" for c in range(1, 9)}
    again, facts = load_deploy(tmp_path / "model")
    assert facts["model"] == model_hash(again, RECIPE.size) and again.names == deployed.names
    assert facts["model"] not in {model_hash(deployed.of(c), RECIPE.size) for c in (None, 1)}
    x, c = pixels(campus, "query", RECIPE.size)[:40], campus.query.camid[:40].to_numpy()
    features = [camera_features(net, x, c, precision="fp32") for net in (again, deployed)]
    assert np.array_equal(*features)
    write_model(deployed.of(), RECIPE, tmp_path / "plain")
    plain, facts = load_deploy(tmp_path / "plain")
    assert isinstance(plain, PTLNet) and "cameras" not in facts


def test_a_gallery_is_embedded_and_searched_camera_by_camera(deployed, campus, tmp_path):
    index = build_index(deployed, RECIPE, campus, ["gallery"], folder=tmp_path / "index")
    expected = camera_features(deployed, pixels(campus, "gallery", RECIPE.size), campus.gallery.camid.to_numpy(),
                               precision="fp32")
    assert np.array_equal(index.features, expected)
    names = camera_names(campus)
    one = index_files(deployed, RECIPE, campus.root, campus.gallery[5:6], names=names)
    np.testing.assert_allclose(one.features[0], index.features[5], atol=2e-6)
    unknown = index_files(deployed, RECIPE, campus.root, campus.gallery[["path"]][5:6], names=names)
    x = pixels(campus, "gallery", RECIPE.size)[5:6]
    np.testing.assert_allclose(unknown.features, extract(deployed.of(), x, "fp32"), atol=2e-6)
    found = search(index, one, top=4)
    views = np.append(one.rows.camid, found.camid)
    others = pixels(campus, "gallery", RECIPE.size)[found.row.to_numpy()]
    *maps, cosines = match_maps(deployed, x[0], others, camids=own_camids(deployed, views, names))
    np.testing.assert_allclose(cosines, found.similarity, atol=1e-4)
    for m in maps: np.testing.assert_allclose(m.sum((1, 2)), cosines, atol=1e-4)


def test_what_does_not_know_cameras_stops(deployed, campus, tmp_path):
    x = pixels(campus, "query", RECIPE.size)[:2]
    with pytest.raises(ValueError, match=r"statistics of campus 1, campus 2.*camera_features"): extract(deployed, x)
    with pytest.raises(ValueError, match=r"net\.of\(camera\)"): export_onnx(deployed, tmp_path / "x.onnx", RECIPE.size)
    assert not list(tmp_path.iterdir())


def test_statistics_that_do_not_fit_are_refused(deployed, tmp_path):
    write_model(deployed, RECIPE, tmp_path)
    few = {name: v for name, v in deployed.cameras[1].items() if not name.startswith("reid.")}
    with pytest.raises(ValueError, match="BN statistics of camera 1 are not of this network"):
        CameraNet(deployed.net, {1: few})
    broken = CameraNet(deployed.net, {1: deployed.cameras[1]})
    broken.cameras[1] = few
    write_model(broken, RECIPE, tmp_path)
    with pytest.raises(ValueError, match="do not fit the recipe beside them.*camera 1"): load_deploy(tmp_path)


@pytest.mark.parametrize("change, words", [
    ({"camids": None}, "BN\\^c needs the camera of each training image"),
    ({"camids": np.ones(3, int)}, r"camids are int64 of shape \(3,\) for 258 images"),
    ({"camids": np.ones(258)}, "camids are float64"),
    ({"fewest": 1}, "fewest is 1; statistics need at least 2"),
    ({"size": 1}, "size is 1")])
def test_bad_input(images, camids, change, words):
    net = network()
    before = bn_statistics(net)
    with pytest.raises(ValueError, match=words):
        estimate_cameras(net, images, **{"camids": camids, "precision": "fp32", **change})
    assert all(torch.equal(v, before[k]) for k, v in bn_statistics(net).items()), "changed before it was refused"


def test_find_and_figure_4_take_it(tmp_path):
    smoke_run("find", tmp_path / "find.ipynb", "method=BL+BN^c", "parts=False", "top=3")
    assert "0 queries, 0 gallery images" in outputs(tmp_path / "find.ipynb")
    smoke_run("fig4", tmp_path / "fig4.ipynb", "methods=BL+BN^t,BL+BN^c", "queries=3", "ranks=4")
