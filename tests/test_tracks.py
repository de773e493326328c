"""From a tracker's text and frames to crops: what fits together, what is left out, what is refused by file and line."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import refusal
from PIL import Image

from ptl_nb.domains import load_domain
from ptl_nb.tracks import Rules, choose_boxes, covered, cut_tracks, find_recordings, read_boxes, read_frames

SIZE = 120, 160  # height, width of a frame
WALK = [(frame, who, 10 + 70 * who + frame, 30, 30, 60) for frame in range(1, 21) for who in (0, 1)]


def picture(frame: int) -> np.ndarray:
    "A frame whose grey tells its number, with a texture."
    rows, columns = np.indices(SIZE)
    return np.repeat((10 * frame + 20 * ((rows // 4 + columns // 4) % 2)).astype(np.uint8)[..., None], 3, 2)


def write(folder: Path, rows=WALK, frames=range(1, 21), text: str = "tracks.txt", ending: str = "png") -> Path:
    "One camera: a tracker's text and pictures."
    (folder / "img1").mkdir(parents=True)
    (folder / text).parent.mkdir(exist_ok=True)
    (folder / text).write_text("".join(",".join(map(str, (*row, 1, -1, -1, -1))) + "\n" for row in rows))
    for n in frames: Image.fromarray(picture(n)).save(folder / "img1" / f"{n:06d}.{ending}")
    return folder


def film(file: Path, frames=range(1, 21)) -> None:
    "The same frames as a video without loss."
    av = pytest.importorskip("av")
    with av.open(str(file), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "bgr0"
        for n in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(n), format="rgb24")): out.mux(packet)
        for packet in stream.encode(): out.mux(packet)


def test_crops_are_the_boxes_and_the_table_says_when_and_whose(tmp_path):
    write(tmp_path / "in/door")
    write(tmp_path / "in/till", text="gt/gt.txt")
    counts = cut_tracks(tmp_path / "in", tmp_path / "out", fps=10, rules=Rules(stride=5, sharpness=0))
    domain = load_domain(tmp_path / "out", camera="camera", time="time")
    train = domain.train
    assert counts.crops.tolist() == [8, 8] and len(train) == 16 and (train.pid == -1).all()
    assert domain.cameras == {1: "door", 2: "till"} and sorted(train.tracklet.unique()) == [0, 1, 2, 3]
    assert train.groupby("tracklet").camid.nunique().eq(1).all()
    assert sorted(train.time.unique()) == [.1, .6, 1.1, 1.6]
    assert train.groupby("time").size().eq(4).all(), "who is seen at once stays seen at once"
    for path, time in zip(train.path, train.time):
        crop = np.asarray(Image.open(tmp_path / "out" / path))
        assert crop.shape == (60, 30, 3) and abs(crop.mean() - (100 * time + 10)) < 2


def test_one_camera_is_a_folder_of_its_own(tmp_path):
    write(tmp_path / "door")
    assert cut_tracks(tmp_path / "door", tmp_path / "out").crops.to_dict() == {"door": 8}
    assert load_domain(tmp_path / "out", time="time").train.time.tolist() == [1, 6, 11, 16] * 2, "frames' numbers"


def test_a_text_of_ones_own_goes_before_what_motchallenge_brings(tmp_path):
    write(write(tmp_path / "a", text="gt/gt.txt").parent / "b", text="gt/gt.txt")
    assert [r.text.name for r in find_recordings(tmp_path)] == ["gt.txt", "gt.txt"]
    (tmp_path / "a/mine.txt").write_text("1,1,0,0,9,9")
    assert [r.text.name for r in find_recordings(tmp_path)] == ["mine.txt", "gt.txt"]
    (tmp_path / "a/other.txt").touch()
    with pytest.raises(ValueError, match="/a holds several: mine.txt, other.txt; give one .txt"):
        find_recordings(tmp_path)


def test_video_gives_the_same_crops_as_pictures(tmp_path):
    write(tmp_path / "pictures/door")
    (tmp_path / "video/door").mkdir(parents=True)
    (tmp_path / "pictures/door/tracks.txt").rename(tmp_path / "video/door/tracks.txt")
    film(tmp_path / "video/door/film.mkv")
    write(tmp_path / "again/door")
    for kind in ("again", "video"): cut_tracks(tmp_path / kind, tmp_path / f"{kind}-out", fps=25)
    ours, theirs = ({f.relative_to(place): f.read_bytes() for f in sorted(place.rglob("*.*"))}
                    for place in (tmp_path / "again-out", tmp_path / "video-out"))
    assert ours == theirs and len(ours) == 9


def test_a_video_that_ends_early_is_named_with_the_line(tmp_path):
    write(tmp_path / "door", frames=())
    (tmp_path / "door/img1").rmdir()
    film(tmp_path / "door/film.mkv", range(1, 11))
    with pytest.raises(ValueError, match=r"tracks.txt, line 21: frame 11, but .*film.mkv has frames 1 to 10 .2 frames"):
        cut_tracks(tmp_path / "door", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "door/tracks.txt").write_text("0,1,10,30,30,60\n1,1,11,30,30,60\n0,2,90,30,30,60\n1,2,91,30,30,60\n")
    with pytest.raises(ValueError, match="line 1: frame 0, but .* has no frame before 1 .*first_frame"):
        cut_tracks(tmp_path / "door", tmp_path / "out")
    counted = cut_tracks(tmp_path / "door", tmp_path / "out", rules=Rules(stride=1, first_frame=0))
    assert counted.crops.tolist() == [4]
    assert abs(np.asarray(Image.open(tmp_path / "out/door/000001_0000000.jpg")).mean() - 20) < 2, "frame 0 is the first"


def test_no_video_is_said(tmp_path):
    pytest.importorskip("av")
    write(tmp_path / "door", frames=())
    (tmp_path / "door/img1").rmdir()
    (tmp_path / "door/film.mp4").write_bytes(b"not a video at all")
    with pytest.raises(ValueError, match="film.mp4 cannot be decoded"): cut_tracks(tmp_path / "door", tmp_path / "out")


def test_pictures_that_are_missing_or_of_another_size(tmp_path):
    write(tmp_path / "short", frames=range(1, 11))
    with pytest.raises(ValueError, match=r"line 21: frame 11, but .*img1 has pictures 1 to 10"):
        cut_tracks(tmp_path / "short", tmp_path / "out")
    write(tmp_path / "odd")
    Image.fromarray(picture(11)[:, :140]).save(tmp_path / "odd/img1/000011.png")
    with pytest.raises(ValueError, match="frame 11 has 140 x 120 pixels, the first 160 x 120"):
        cut_tracks(tmp_path / "odd", tmp_path / "out")
    (tmp_path / "odd/img1/000011.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot decode the image .*000011.png"):
        cut_tracks(tmp_path / "odd", tmp_path / "out")
    (tmp_path / "odd/img1/last.png").write_bytes(b"")
    with pytest.raises(ValueError, match="last.png has a name that does not end in a frame's number"):
        cut_tracks(tmp_path / "odd", tmp_path / "out")
    assert not (tmp_path / "out").exists() and sorted(p.name for p in tmp_path.iterdir()) == ["odd", "short"]


@pytest.mark.parametrize("lines, said", [
    (["frame,id,x,y,w,h", "1,1,1,1,9,9"], "line 1: frame 'frame' is no whole number"),
    (["1,1,1,1,9,9", "", "2,1.5,1,1,9,9"], "line 3: id '1.5' is no whole number"),
    (["1,1,1,1,9,9", "2,1,nan,1,9,9"], "line 2: x 'nan' is no number"),
    (["1,1,1,1,9,9", "2,1,1,1,9"], "line 2: 5 columns"), (["1 1 1 1 9 9"], "line 1: 1 columns"),
    (["1,1,1,1,9,9", "1,2,1,1,9,9", "1,1,2,1,9,9"], "line 3: id 1 is in frame 1 already in line 1"),
    (["1,-1,1,1,9,9", "2,-1,1,1,9,9"], "id -1 in every line: these are a detector's boxes"),
    (["1,1,.5,.5,.1,.2"], "as shares of the picture"), (["1,1,1,1,-9,9"], "line 1: a box of -9 x 9"),
    (["1,1,1,1,9,9,0"], "no box of a pedestrian"), ([], "is empty"),
    ([",".join(map(str, (who, frame, *box))) for frame, who, *box in WALK], "the columns seem to be id,frame")])
def test_texts_that_are_refused(tmp_path, lines, said):
    (tmp_path / "t.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=said) as refused: read_boxes(tmp_path / "t.txt")
    assert "t.txt" in str(refused.value)


def test_a_text_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "t.txt").write_bytes("1,1,1,1,9,9".encode("utf-16"))
    with pytest.raises(ValueError, match="t.txt is no text"): read_boxes(tmp_path / "t.txt")


def test_corners_and_texts_of_another_size_are_refused(tmp_path):
    write(tmp_path / "corners", [(f, i, x, y + 20, x + w, y + 20 + h) for f, i, x, y, w, h in WALK])
    write(tmp_path / "large", [(f, i, 4 * x, 4 * y, 4 * w, 4 * h) for f, i, x, y, w, h in WALK])
    with pytest.raises(ValueError, match="out of the picture of 160 x 120 pixels; the columns seem to be x1,y1,x2"):
        cut_tracks(tmp_path / "corners", tmp_path / "out")
    with pytest.raises(ValueError, match="or the video was made smaller"):
        cut_tracks(tmp_path / "large", tmp_path / "out")


def test_every_box_is_a_crop_or_counted(tmp_path):
    rng = np.random.default_rng(0)
    boxes = pd.DataFrame({"frame": rng.integers(1, 30, 400), "x": rng.uniform(-20, 150, 400),
                          "y": rng.uniform(-9, 80, 400),
                          "w": rng.uniform(5, 30, 400), "h": rng.uniform(20, 80, 400), "id": np.arange(400)})
    for rules in (Rules(), Rules(stride=1, overlap=0), Rules(stride=3, height=30, outside=.4, overlap=1)):
        kept, why = choose_boxes(boxes, SIZE, rules)
        assert len(kept) + sum(why.values()) - why["trimmed"] == len(boxes)
        assert (kept[["x", "y"]] >= 0).all(axis=None)
        assert (kept.x + kept.w <= 160).all() and (kept.y + kept.h <= 120).all()
        same = boxes.loc[kept.index]
        assert ((kept.w * kept.h) >= (1 - rules.outside) * same.w * same.h - 1e-9).all()
        changed = (~np.isclose(kept, same[kept.columns])).any(axis=1)
        assert int(changed.sum()) == why["trimmed"], "nothing is trimmed in silence"


def naive_cover(boxes: pd.DataFrame) -> list[float]:
    share = []
    for a in boxes.itertuples():
        most = 0.0
        for b in boxes.itertuples():
            if a.Index == b.Index or a.frame != b.frame: continue
            w = max(0, min(a.x + a.w, b.x + b.w) - max(a.x, b.x))
            h = max(0, min(a.y + a.h, b.y + b.h) - max(a.y, b.y))
            most = max(most, w * h / (a.w * a.h))
        share.append(most)
    return share


def test_cover_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    boxes = pd.DataFrame({"frame": rng.integers(0, 9, 90), **{c: rng.uniform(1, 40, 90) for c in "xywh"}})
    np.testing.assert_allclose(covered(boxes), naive_cover(boxes))
    assert covered(boxes[:1]).tolist() == [0]


def test_blurred_crops_are_found_within_their_tracklet(tmp_path):
    write(tmp_path / "door")
    flat = np.full((*SIZE, 3), 100, np.uint8)
    Image.fromarray(flat).save(tmp_path / "door/img1/000006.png")
    counts = cut_tracks(tmp_path / "door", tmp_path / "out")
    assert counts.blurred.tolist() == [2] and counts.crops.tolist() == [6]
    assert not list((tmp_path / "out").rglob("*_0000006.jpg"))


def test_one_tracklet_is_refused_and_says_what_was_left_out(tmp_path):
    write(tmp_path / "door", [row for row in WALK if row[1] == 0])
    with pytest.raises(ValueError, match="4 crops of 1 tracklets; nobody to.*door: 20 boxes, 16 in frames between"):
        cut_tracks(tmp_path / "door", tmp_path / "out")


def test_what_is_there_already_stays(tmp_path):
    write(tmp_path / "door")
    (tmp_path / "out").mkdir()
    cut_tracks(tmp_path / "door", tmp_path / "out")
    before = {f: f.read_bytes() for f in (tmp_path / "out").rglob("*.*")}
    with pytest.raises(ValueError, match="out is there already and not empty"):
        cut_tracks(tmp_path / "door", tmp_path / "out")
    assert before == {f: f.read_bytes() for f in (tmp_path / "out").rglob("*.*")}


@pytest.mark.parametrize("change, said", [({"stride": 0}, "stride is 0"), ({"height": 0}, "height is 0"),
                                          ({"overlap": 1.1}, "overlap is 1.1"), ({"sharpness": -1}, "sharpness is -1")])
def test_rules_that_cannot_be(change, said):
    with pytest.raises(ValueError, match=said): Rules(**change)


def test_frames_come_in_order_whatever_the_text_says(tmp_path):
    write(tmp_path / "door", WALK[::-1])
    recording, = find_recordings(tmp_path / "door")
    boxes, _ = read_boxes(recording.text)
    assert [n for n, _ in read_frames(recording, boxes)] == list(range(1, 21))


def test_the_same_id_in_two_cameras_is_two_tracklets_and_twice_at_once_an_error(tmp_path):
    for camera in "ab": write(tmp_path / "in" / camera)
    cut_tracks(tmp_path / "in", tmp_path / "out")
    file = tmp_path / "out/domain.csv"
    table = pd.read_csv(file)
    assert table.tracklet.nunique() == 2 and load_domain(file).train.tracklet.nunique() == 4
    table.assign(camid=1).to_csv(file, index=False)
    with pytest.raises(ValueError, match=r"line 10: tracklet '0' is at time 1 already in line 2, in the same camera"):
        load_domain(file, time="time")
    table.assign(tracklet=["", *table.tracklet[1:]]).to_csv(file, index=False)
    assert load_domain(file).train.tracklet.tolist()[0] == -1


def test_folders_of_tracks(tmp_path):
    for camera, track in (("a", "1"), ("a", "2"), ("b", "1")):
        (tmp_path / camera / track).mkdir(parents=True)
        for n in (1, 2): Image.fromarray(picture(n)).save(tmp_path / camera / track / f"{n}.png")
    train = load_domain(tmp_path, tracklet="^[^/]+/([^/]+)/").train
    assert train.tracklet.tolist() == [0, 0, 1, 1, 2, 2] and train.camid.tolist() == [1, 1, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="has no tracklet in its path"): load_domain(tmp_path, tracklet="/(x)/")
    with pytest.raises(ValueError, match="camera, time and tracklet go with"): load_domain("plaza", tracklet="(x)")
    (tmp_path / "domain.csv").write_text("path,pid,camid,split\na/1/1.png,-1,1,train\n")
    with pytest.raises(ValueError, match="name the tracklets' column 'tracklet'"): load_domain(tmp_path, tracklet="x")


@pytest.mark.parametrize("given, said", [
    (["stride=0"], "stride is 0"), (["rows=0"], "rows is 0"), (["fps=-1.0"], "fps is -1"),
    (["tracks=nowhere"], "nowhere is no folder"), (["crop=x"], "did you mean 'crops'")])
def test_the_notebook_refuses(given, said):
    assert said in refusal("crops", *given).says
