"""The embedded stand-ins: pins, unpacking under two processes, truth that fits the images, layouts, the renderer's
determinism."""
import csv
import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptl_nb import standins
from ptl_nb.data import pixels
from ptl_nb.domains import load_domain
from ptl_nb.label_data import load_labels
from ptl_nb.label_sets import crops

REID = ('plaza', 'campus', 'corridor')


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    "A cache of this module's own."
    before = os.environ.get('PTL_CACHE')
    os.environ['PTL_CACHE'] = str(tmp_path_factory.mktemp('cache'))
    yield Path(os.environ['PTL_CACHE'])
    os.environ.pop('PTL_CACHE')
    if before is not None: os.environ['PTL_CACHE'] = before


def test_import_is_light():
    code = ("import sys, ptl_nb.standins; print([m for m in ('torch', 'anny', 'numba', 'pandas', "
            "'scipy') if m in sys.modules])")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          check=True).stdout.strip() == '[]'


@pytest.mark.slow
@pytest.mark.parametrize('name', standins.STANDINS)
def test_images_truth_and_marker_agree(cache, name):
    root = standins.unpack(name)
    paths = standins.stored_images(name)
    marker = json.loads((root / 'standin.json').read_text())
    assert (marker['name'] == name and marker['stands_for'] == standins.STANDINS[name] and marker['rendered']
            and marker['images'] == len(paths))
    with open(root / 'truth/attributes.csv', newline='') as f: head, *rows = csv.reader(f)
    assert sorted(r[0] for r in rows) == paths and len(paths) >= (900 if name == 'corridor' else 1500)
    table = np.array([r[1:] for r in rows], int)
    assert (table.reshape(len(rows), -1, 2).sum(2) == 1).all()
    assert [c.rsplit('=', 1)[1] for c in head[1:]] == ['no', 'yes'] * (len(head) // 2) and len(head) // 2 >= 40
    for p in paths[::37]:
        part = np.asarray(Image.open((root / 'truth/parts' / p).with_suffix('.png')))
        image = Image.open(root / p)
        assert (part.shape == image.size[::-1] == (128, 64) and part.dtype == np.uint8 and part.max() <= 7
                and image.mode == 'RGB')


def test_empty_boxes_have_no_person(cache):
    "Every third distractor of the plaza is background only: no part, no attribute."
    root = standins.unpack('plaza')
    with open(root / 'truth/attributes.csv', newline='') as f: _, *rows = csv.reader(f)
    empty = [r[0] for r in rows if not any(int(v) for v in r[2::2])]
    assert len(empty) == 34 and all('/0000_' in p for p in empty)
    for p in empty: assert np.asarray(Image.open((root / 'truth/parts' / p).with_suffix('.png'))).max() == 0


def test_two_processes_unpack_at_once(tmp_path):
    code = "from ptl_nb.standins import unpack; p = unpack('corridor'); print(p, len(list(p.rglob('*.png'))))"
    def run(_):
        return subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PTL_CACHE': str(tmp_path)},
                              capture_output=True, text=True)
    with ThreadPoolExecutor(2) as pool: done = list(pool.map(run, range(2)))
    assert [d.returncode for d in done] == [0, 0], done[0].stderr + done[1].stderr
    last = [d.stdout.splitlines()[-1] for d in done]                   # one of them may say that it waits
    assert last[0] == last[1] and last[0].endswith(' 960')
    assert len(list((tmp_path / 'standins').glob('[!.]*'))) == 1 and not list((tmp_path / 'standins').glob('*.tmp'))


def test_damaged_archive_is_refused(cache, monkeypatch):
    monkeypatch.setitem(standins.SHA256, 'mall', '0' * 64)
    with pytest.raises(ValueError, match='mall.zip is not the frozen archive.*0000.*reinstall'): standins.unpack('mall')
    with pytest.raises(ValueError, match="did you mean 'mall'"): standins.unpack('mal')


def test_export_refuses_what_is_there(cache, tmp_path):
    target = standins.export_layout('campus', tmp_path)
    assert (target.name == 'DukeMTMC-reID'
            and sorted(p.name for p in target.iterdir()) == ['bounding_box_test', 'bounding_box_train', 'query',
                                                             'standin.json'])
    with pytest.raises(ValueError, match='not empty'): standins.export_layout('campus', tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['DukeMTMC-reID']


@pytest.mark.parametrize('name', REID)
def test_every_query_has_a_match_in_another_camera(cache, name):
    from ptl_nb.domains import load_domain
    d = load_domain(name)
    seen = set(zip(d.gallery.pid, d.gallery.camid))
    for pid, cam in zip(d.query.pid, d.query.camid): assert any(p == pid and c != cam for p, c in seen)
    assert d.train.groupby('pid').size().min() >= 8 and d.train.groupby('pid').camid.nunique().min() >= 2


@pytest.mark.slow
def test_rendering_twice_gives_the_same_bytes():
    from ptl_nb import renderer
    one, two = (renderer.tried_on('street', renderer.cameras_of('street', 2)) for _ in range(2))
    for a, b in zip(one, two): assert a.tobytes() == b.tobytes()
    assert one[0].shape == (4, 128, 64, 3) and set(np.unique(one[1])) == set(range(8))


@pytest.mark.slow
def test_plans_are_what_is_shipped(cache):
    "The frozen archives hold exactly the files that the renderer of this version plans."
    from ptl_nb import renderer
    for name in standins.STANDINS: assert [s['path'] for s in renderer.plan(name)] == standins.stored_images(name)


@pytest.mark.skipif('PTL_ANNY' not in os.environ,
                    reason='set PTL_ANNY=1 to build the body model (minutes, '
                    '800 MB of cache) and compare with the archives')
def test_archive_comes_from_this_renderer(cache):
    """One batch of the corridor, posed by anny, equals the stored part maps (as far as floating point agrees between
    machines)."""
    from ptl_nb import renderer
    shots = renderer.plan('corridor')
    k = renderer.rng_of(renderer.DOMAINS['corridor']['seed'], 6).permutation(len(shots))[:32]
    _, parts, _ = renderer.render_batch([shots[i] for i in k], renderer.DOMAINS['corridor'],
                                        renderer.cameras_of('corridor'))
    stored = [
        np.asarray(Image.open((standins.truth_store('corridor') / 'parts' / shots[i]['path']).with_suffix('.png')))
        for i in k]
    assert (parts == np.stack(stored)).mean() > .999


# the cache folder

def no_home(monkeypatch):
    import pwd
    def unknown(*_):
        raise KeyError("no such user")
    monkeypatch.delenv('HOME')
    monkeypatch.setattr(pwd, 'getpwuid', unknown)


def of_others(monkeypatch, tmp_path):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('HOME', str(tmp_path / 'file'))           # no folder can be made in it, by root neither


ENTRANCES = {'stand-in': lambda: standins.unpack('corridor'), 'pixels': lambda: pixels(FOUR, 'train', (8, 4)),
             'label data': lambda: load_labels('rap', origin='standin'), 'crops': lambda: crops(PERSONS, (8, 4))}


@pytest.fixture(scope='module')
def four():
    "A domain and four persons, unpacked before the cache folder refuses."
    global FOUR, PERSONS
    FOUR = load_domain('corridor')
    PERSONS = load_labels('densepose', origin='standin').take(np.arange(4))


@pytest.mark.slow
@pytest.mark.parametrize('entrance', ENTRANCES)
@pytest.mark.parametrize('why', ['no home', 'a home that cannot be written', 'a file in its place', 'no locks'])
def test_every_error_of_the_cache_folder_names_its_variable(four, tmp_path, monkeypatch, entrance, why):
    monkeypatch.delenv('PTL_CACHE', raising=False)
    if why == 'no home': no_home(monkeypatch)
    if why == 'a home that cannot be written': of_others(monkeypatch, tmp_path)
    if why == 'a file in its place': (tmp_path / 'c').touch(); monkeypatch.setenv('PTL_CACHE', str(tmp_path / 'c'))
    if why == 'no locks':
        def flock(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        monkeypatch.setattr('ptl_nb.disk.fcntl.flock', flock)
        monkeypatch.setenv('PTL_CACHE', str(tmp_path / 'd'))
    with pytest.raises((OSError, ValueError), match='PTL_CACHE') as told: ENTRANCES[entrance]()
    assert (why != 'no locks' or 'the disk of the folder '
            f'{tmp_path}' in str(told.value) and 'has no file locks' in str(told.value))


def test_tilde_in_the_variable_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('PTL_CACHE', '~/here')
    monkeypatch.chdir(tmp_path)
    assert standins.unpack('corridor').is_relative_to(tmp_path / 'here') and not (tmp_path / '~').exists()


@pytest.mark.slow
def test_a_damaged_array_of_the_cache_is_named(four, tmp_path):
    pixels(FOUR, 'query', (8, 4), tmp_path)
    file, = tmp_path.glob('*.npy')
    for content in (b'', file.read_bytes()[:200]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match='npy is damaged .*: delete it, it is made again'):
            pixels(FOUR, 'query', (8, 4), tmp_path)
