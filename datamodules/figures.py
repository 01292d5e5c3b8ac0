"""Drawings of a figure that acts: raises its arms, kicks, bows, and so on.

A pose is a set of angles in radians: 0 hangs down, positive values turn to the right of the
picture. Each action is a period of poses.
"""

from collections.abc import Callable
from math import radians, tau
from typing import Any

import numpy as np

from datamodules.synthetic import paint, texture

Pose = dict[str, Any]  # arrays (frames,), or numbers where nothing moves
# Lean of the torso; shift of the shoulders to the right and of the hips downwards, as shares of the
# picture's height; and of each side shoulder, elbow, hip and knee.
REST: Pose = {
    "lean": 0.0,
    "right": 0.0,
    "down": 0.0,
    "shoulder_l": radians(-12),
    "elbow_l": radians(-8),
    "hip_l": radians(-8),
    "knee_l": 0.0,
    "shoulder_r": radians(12),
    "elbow_r": radians(8),
    "hip_r": radians(8),
    "knee_r": 0.0,
}
# Lengths and radii of the parts, as shares of the picture's height.
TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = 0.234, 0.141, 0.125, 0.141, 0.141
NECK, HEAD = 0.094, 0.056


def _swing(phase: np.ndarray) -> np.ndarray:
    """There and back, in [0, 1]."""
    return 0.5 - 0.5 * np.cos(tau * phase)


def _pull(phase: np.ndarray) -> np.ndarray:
    """Slowly there and quickly back, in [0, 1]."""
    phase = phase % 1
    slow, quick = np.cos(tau * phase / 1.5), np.cos(tau * (phase - 0.75) / 0.5)
    return np.where(phase < 0.75, 0.5 - 0.5 * slow, 0.5 + 0.5 * quick)


def _mirrored(pose: Pose) -> Pose:
    """The same with left and right exchanged."""
    sides = {"_l": "_r", "_r": "_l"}
    return {
        name[:-2] + sides[name[-2:]] if name[-2:] in sides else name: (
            value if name == "down" else -value
        )
        for name, value in pose.items()
    }


def _both(pose: Pose) -> Pose:
    """The same on both sides."""
    return pose | _mirrored(pose)


def _march(phase: np.ndarray) -> Pose:
    lifts = np.maximum(np.sin(tau * phase), 0), np.maximum(-np.sin(tau * phase), 0)
    one, other = (
        {
            "hip_r": radians(75) * lift,
            "knee_r": -radians(80) * lift,
            "shoulder_r": radians(10) + radians(50) * rest,
        }
        for lift, rest in (lifts, lifts[::-1])
    )
    return one | _mirrored(other)


def _squat(phase: np.ndarray) -> Pose:
    depth = _swing(phase)
    return {"down": 0.156 * depth} | _both(
        {
            "hip_r": radians(5) + radians(50) * depth,
            "knee_r": -radians(90) * depth,
            "shoulder_r": radians(15) + radians(70) * depth,
        }
    )


def _jump(phase: np.ndarray) -> Pose:
    height = _swing(phase)
    return {"down": -0.03 * height} | _both(
        {
            "shoulder_r": radians(15) + radians(140) * height,
            "hip_r": radians(5) + radians(30) * height,
        }
    )


def _raise(phase: np.ndarray) -> Pose:
    return _both({"shoulder_r": radians(10) + radians(150) * _pull(phase)})


def _windmill(phase: np.ndarray) -> Pose:
    return {"shoulder_r": tau * phase, "shoulder_l": tau * phase + np.pi}


def _wave(phase: np.ndarray) -> Pose:
    bend = radians(60) + radians(45) * np.sin(tau * phase)
    return {"shoulder_r": radians(115), "elbow_r": bend}


def _punch(phase: np.ndarray) -> Pose:
    reach = _swing(phase)
    shoulder = radians(40) + radians(50) * reach
    return {"shoulder_r": shoulder, "elbow_r": radians(110) * (1 - reach)}


def _kick(phase: np.ndarray) -> Pose:
    height = _swing(phase)
    return {"hip_r": radians(5) + radians(85) * height, "lean": -radians(15) * height}


def _bow(phase: np.ndarray) -> Pose:
    return {"lean": radians(75) * _swing(phase)}


def _sway(phase: np.ndarray) -> Pose:
    akimbo = _both({"shoulder_r": radians(50), "elbow_r": -radians(100)})
    wave = np.sin(tau * phase)
    return akimbo | {"lean": radians(28) * wave, "right": 0.047 * wave}


def _to_the_left(action: Callable[[np.ndarray], Pose]) -> Callable[[np.ndarray], Pose]:
    return lambda phase: _mirrored(action(phase))


def _backwards(action: Callable[[np.ndarray], Pose]) -> Callable[[np.ndarray], Pose]:
    return lambda phase: action(-phase)


# The changes from `REST` at each phase of a period; phases are in periods.
ACTIONS: dict[str, Callable[[np.ndarray], Pose]] = {
    "bow_left": _to_the_left(_bow),
    "bow_right": _bow,
    "jump": _jump,
    "kick_left": _to_the_left(_kick),
    "kick_right": _kick,
    "lower_arms": _backwards(_raise),
    "march": _march,
    "punch_left": _to_the_left(_punch),
    "punch_right": _punch,
    "raise_arms": _raise,
    "squat": _squat,
    "sway": _sway,
    "wave_left": _to_the_left(_wave),
    "wave_right": _wave,
    "windmill_left": _backwards(_windmill),
    "windmill_right": _windmill,
}


def draw_action(
    action: str, rng: np.random.Generator, num_frames: int = 40, size: int = 64
) -> np.ndarray:
    """Draw a video of a figure in the middle of the picture.

    Its place, size, build, colour and speed are random, and so are the still background and two
    discs that drift across it.

    Args:
        action: one of ACTIONS.
        rng: source of randomness.
        num_frames: frames of the video; a period of the action takes 14 to 20.
        size: height and width, pixels.

    Returns:
        uint8 ``(num_frames, size, size, 3)``, RGB.
    """
    time = np.arange(num_frames)
    pose = REST | ACTIONS[action](rng.uniform() + time / rng.uniform(14, 20))
    centre = np.array([0.5, 0.547]) + rng.uniform(-0.047, 0.047, 2)
    ends, radii = _limbs(pose, num_frames, centre, rng.uniform(0.9, 1.1), rng.uniform(0.028, 0.047))
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    still = 0.6 * paint(texture(*np.meshgrid(grid * size / 8, grid * size / 8), rng), rng)
    discs = [
        (rng.uniform(0, 1, 2), rng.uniform(-0.023, 0.023, 2), rng.uniform(0.047, 0.109), colour)
        for colour in 0.6 * rng.uniform(0, 1, (2, 3)).astype(np.float32)
    ]
    colour = 0.3 + 0.7 * rng.uniform(0.35, 1, 3).astype(np.float32)
    video = np.empty((num_frames, size, size, 3), np.uint8)
    for frame in range(num_frames):  # one at a time stays in the cache
        picture = still
        for start, speed, radius, disc in discs:
            x, y = (start + speed * frame) % 1
            # The picture is a torus, so that a disc is always there.
            dx, dy = ((grid - at + 0.5) % 1 - 0.5 for at in (x, y))
            picture = _blend(picture, disc, radius - np.hypot(dx[None, :], dy[:, None]), size)
        picture = _blend(picture, colour, _inside(ends[frame], radii, grid), size)
        picture = picture + 0.02 * rng.standard_normal(picture.shape, np.float32)
        video[frame] = (picture.clip(0, 1) * 255).round()
    return video


def _blend(below: np.ndarray, colour: np.ndarray, inside: np.ndarray, size: int) -> np.ndarray:
    """Paint a colour where ``inside``, a distance ``(H, W)`` from the border, is positive."""
    alpha = (0.5 + inside * size).clip(0, 1)[..., None]
    return alpha * colour + (1 - alpha) * below


def _limbs(
    pose: Pose, num_frames: int, hips: np.ndarray, scale: float, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the limbs as (x, y), ``(frames, limbs, 2 ends, 2)``, and their radii ``(limbs,)``.

    Coordinates and radii are shares of the picture's height.
    """
    angles = {name: np.broadcast_to(value, num_frames) for name, value in pose.items()}
    lean, still = angles["lean"], np.zeros(num_frames)
    hip = hips + scale * np.stack([still, angles["down"]], 1)  # (frames, 2)
    up = np.stack([np.sin(lean), -np.cos(lean)], 1)
    across = np.stack([np.cos(lean), still], 1)
    neck = hip + scale * TORSO * up + np.stack([angles["right"], still], 1)
    head = neck + scale * NECK * up
    limbs = [(hip, neck, radius * 1.5), (head, head + 1e-4, HEAD * scale)]

    def towards(angle: np.ndarray) -> np.ndarray:
        return np.stack([np.sin(angle), np.cos(angle)], 1)

    for side, sign in (("l", -1), ("r", 1)):
        shoulder = neck + scale * (sign * 0.047 * across + np.array([0, 0.031]))
        arm = angles[f"shoulder_{side}"]
        elbow = shoulder + scale * UPPER_ARM * towards(arm)
        hand = elbow + scale * LOWER_ARM * towards(arm + angles[f"elbow_{side}"])
        leg = angles[f"hip_{side}"]
        top = hip + scale * np.array([sign * 0.031, 0])
        knee = top + scale * UPPER_LEG * towards(leg)
        foot = knee + scale * LOWER_LEG * towards(leg + angles[f"knee_{side}"])
        limbs += [(shoulder, elbow, radius), (elbow, hand, radius * 0.9)]
        limbs += [(top, knee, radius * 1.15), (knee, foot, radius)]
    ends = np.stack([np.stack([a, b], 1) for a, b, _ in limbs], 1)
    return ends.astype(np.float32), np.array([r for _, _, r in limbs], np.float32)


def _inside(ends: np.ndarray, radii: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """How deep each pixel is in the figure, ``(H, W)``: its distance from the border, or below 0.

    Args:
        ends: of the limbs in one frame, ``(limbs, 2, 2)``.
        radii: of the limbs, ``(limbs,)``.
        grid: coordinates of the pixels along an axis, ``(size,)``.
    """
    (ax, ay), (bx, by) = (e.T[:, :, None, None] for e in (ends[:, 0], ends[:, 1]))
    px, py = grid[None, None, :] - ax, grid[None, :, None] - ay  # from the first end
    ex, ey = bx - ax, by - ay
    along = ((px * ex + py * ey) / (ex * ex + ey * ey)).clip(0, 1)
    dx, dy = px - along * ex, py - along * ey  # (limbs, H, W)
    distance = np.sqrt(dx * dx + dy * dy)  # several times as fast as `np.hypot`
    return (radii[:, None, None] - distance).max(0)
