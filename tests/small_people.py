"""Small two-coloured people that a test can train on in seconds."""
import numpy as np

from ptl_nb.data import Images


def _coloured(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Pixels, pids and the colours (72, 2, 3) of the upper and lower body."
    rng = np.random.default_rng(seed)
    pids = np.repeat(np.arange(12), 6)
    colours = rng.integers(20, 236, (12, 2, 3))[pids]
    body = np.repeat(colours, 16, 1)[:, :, None].repeat(16, 2)
    return np.clip(body + rng.normal(0, 12, body.shape), 0, 255).astype(np.uint8), pids, colours


def crowd(seed: int) -> tuple[np.ndarray, np.ndarray]:
    "Noisy two-coloured people (72, 32, 16, 3), and who they are."
    return _coloured(seed)[:2]


def described_crowd(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "The same with two soft attributes (72, 2, 2): bright above, bright below."
    x, pids, colours = _coloured(seed)
    yes = colours.mean(2) / 255
    return x, pids, np.stack([1 - yes, yes], 2).astype(np.float32)


def target_crowd(seed: int = 0) -> tuple[Images, np.ndarray]:
    "The same under three cameras, as images of a target, and who they are."
    x, pids = crowd(seed)
    return Images(x, camids=np.tile([0, 0, 1, 1, 2, 2], 12)), pids
