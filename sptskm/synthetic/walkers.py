"""Model a walker by parameters of body and gait, and compute the joints at any phase of the gait.

Shapes: F frames, V = 16 points (the 14 joints, then the right and the left toe), 3 = metres in the walker's own
coordinates: x toward the walker's left, y down, z backward. The walker faces -z.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Colour = tuple[float, float, float]

RIGHT, LEFT = -1, 1

# Blue, green, red.
SKINS: tuple[Colour, ...] = ((150, 180, 225), (120, 155, 205), (85, 115, 165), (55, 75, 110))
HAIRS: tuple[Colour, ...] = ((30, 32, 36), (40, 60, 90), (70, 130, 175), (140, 140, 145))


@dataclass(frozen=True)
class Body:
    """Proportions of a walker; stature is in metres, lengths are shares of it, build is a factor of the girth."""

    stature: float
    legs: float
    thigh: float
    arms: float
    shoulders: float
    hips: float
    head: float
    build: float


@dataclass(frozen=True)
class GaitStyle:
    """The movement of a walker; angles in radians, cycle in frames, asymmetries as left over right."""

    cycle: float
    stride: float
    hip_offset: float
    knee_swing: float
    knee_stance: float
    knee_phase: float
    leg_asymmetry: float
    step_width: float
    toe_out: float
    pelvis_turn: float
    pelvis_drop: float
    lean: float
    sway: float
    sway_phase: float
    shoulder_turn: float
    head_pitch: float
    head_bob: float
    arm_swing: float
    arm_asymmetry: float
    arm_phase: float
    arm_offset: float
    arm_spread: float
    elbow: float
    elbow_swing: float


BODY_RANGES = {
    "stature": (1.52, 1.92),
    "legs": (0.49, 0.56),
    "thigh": (0.46, 0.53),
    "arms": (0.30, 0.37),
    "shoulders": (0.19, 0.26),
    "hips": (0.09, 0.14),
    "head": (0.14, 0.17),
    "build": (0.8, 1.35),
}

GAIT_RANGES = {
    "cycle": (9.5, 14.5),
    "stride": (0.28, 0.58),
    "hip_offset": (-0.02, 0.14),
    "knee_swing": (0.65, 1.35),
    "knee_stance": (0.02, 0.25),
    "knee_phase": (4.6, 5.2),
    "leg_asymmetry": (-0.18, 0.18),
    "step_width": (-0.03, 0.09),
    "toe_out": (-0.1, 0.45),
    "pelvis_turn": (0.02, 0.25),
    "pelvis_drop": (-0.02, 0.14),
    "lean": (-0.06, 0.22),
    "sway": (0.0, 0.12),
    "sway_phase": (-0.9, 0.9),
    "shoulder_turn": (0.02, 0.3),
    "head_pitch": (-0.05, 0.32),
    "head_bob": (0.0, 0.14),
    "arm_swing": (0.08, 0.75),
    "arm_asymmetry": (-0.5, 0.5),
    "arm_phase": (-0.7, 0.7),
    "arm_offset": (-0.15, 0.2),
    "arm_spread": (0.04, 0.32),
    "elbow": (0.05, 0.95),
    "elbow_swing": (0.0, 0.5),
}


@dataclass(frozen=True)
class Walker:
    """A person without clothes: body, gait, and the visible colours of skin and hair."""

    body: Body
    gait: GaitStyle
    skin: Colour
    hair: Colour
    long_hair: bool


def draw_walker(rng: np.random.Generator) -> Walker:
    """Draw a walker from BODY_RANGES and GAIT_RANGES."""
    body = Body(**{name: rng.uniform(*span) for name, span in BODY_RANGES.items()})
    gait = GaitStyle(**{name: rng.uniform(*span) for name, span in GAIT_RANGES.items()})
    skin = SKINS[rng.integers(len(SKINS))]
    hair = HAIRS[rng.integers(len(HAIRS))]
    return Walker(body, gait, skin, hair, bool(rng.random() < 0.4))


def on_another_day(gait: GaitStyle, drift: float, rng: np.random.Generator) -> GaitStyle:
    """Return the gait with every parameter changed by a normal step of `drift` times the width of its range."""
    moved = {
        name: getattr(gait, name) + rng.normal(0, drift) * (high - low) for name, (low, high) in GAIT_RANGES.items()
    }
    return replace(gait, **moved)


def pose(body: Body, gait: GaitStyle, phase_F: Floats) -> Floats:
    """Compute the points (F, 16, 3) of a walker at phases in radians; phase 0 is the strike of the left heel.

    The middle of the pelvis stays at the origin.
    """
    hips = _hips(body, gait, phase_F)
    shoulders, neck, head = _trunk(body, gait, phase_F)
    points = np.zeros((len(phase_F), 16, 3))
    points[:, 0], points[:, 1] = head, neck
    for side, arm, leg, toe in ((RIGHT, 2, 8, 14), (LEFT, 5, 11, 15)):
        points[:, arm] = shoulders[side]
        points[:, arm + 1], points[:, arm + 2] = _arm(body, gait, phase_F, side, shoulders[side])
        points[:, leg] = hips[side]
        chain = _leg(body, gait, phase_F, side, hips[side])
        points[:, leg + 1], points[:, leg + 2], points[:, toe] = chain
    return points


def _direction(forward_F: Floats, outward: Floats | float) -> Floats:
    """Return unit vectors that point down, swung forward by one angle and toward the left by another."""
    forward_F, outward = np.broadcast_arrays(forward_F, outward)
    down = np.cos(forward_F) * np.cos(outward)
    return np.stack([np.sin(outward), down, -np.sin(forward_F) * np.cos(outward)], axis=-1)


def _lateral(turn_F: Floats, roll_F: Floats) -> Floats:
    """Return unit vectors toward the left, turned about the vertical axis and rolled (left side down)."""
    return np.stack([np.cos(turn_F) * np.cos(roll_F), np.sin(roll_F), -np.sin(turn_F) * np.cos(roll_F)], axis=-1)


def _hips(body: Body, gait: GaitStyle, phase_F: Floats) -> dict[int, Floats]:
    turn = gait.pelvis_turn * np.cos(phase_F)
    drop = -gait.pelvis_drop * np.sin(phase_F)
    half = _lateral(turn, drop) * (body.stature * body.hips / 2)
    return {RIGHT: -half, LEFT: half}


def _trunk(body: Body, gait: GaitStyle, phase_F: Floats) -> tuple[dict[int, Floats], Floats, Floats]:
    roll = gait.sway * np.sin(phase_F + gait.sway_phase)
    trunk = body.stature * (0.83 - body.legs)
    down = _direction(np.full_like(phase_F, -gait.lean), -roll)
    centre = -trunk * down
    turn = -gait.shoulder_turn * np.cos(phase_F + gait.arm_phase)
    half = _lateral(turn, roll) * (body.stature * body.shoulders / 2)
    neck = centre - 0.03 * body.stature * down
    nod = gait.lean + gait.head_pitch + gait.head_bob * np.cos(2 * phase_F)
    head = neck - body.stature * body.head * _direction(-nod, -0.5 * roll)
    return {RIGHT: centre - half, LEFT: centre + half}, neck, head


def _arm(body: Body, gait: GaitStyle, phase_F: Floats, side: int, shoulder_F3: Floats) -> tuple[Floats, Floats]:
    """Return elbow and wrist (F, 3) of one side; an arm swings against the leg of its side."""
    own = phase_F if side == LEFT else phase_F + np.pi
    beat = -np.cos(own + gait.arm_phase)
    swing = gait.arm_offset + gait.arm_swing * (1 + side * gait.arm_asymmetry) * beat
    bend = gait.elbow + gait.elbow_swing * (1 + beat) / 2
    arm = body.stature * body.arms
    elbow = shoulder_F3 + 0.54 * arm * _direction(swing, side * gait.arm_spread)
    wrist = elbow + 0.46 * arm * _direction(swing + bend, side * gait.arm_spread * 0.3)
    return elbow, wrist


def _leg(body: Body, gait: GaitStyle, phase_F: Floats, side: int, hip_F3: Floats) -> tuple[Floats, Floats, Floats]:
    """Return knee, ankle and toe (F, 3) of one side; the leg swings forward in the second half of its cycle."""
    own = phase_F if side == LEFT else phase_F + np.pi
    swing = gait.hip_offset + gait.stride * (1 + side * gait.leg_asymmetry) * np.cos(own)
    lift = np.exp(2.5 * (np.cos(own - gait.knee_phase) - 1))
    loading = np.exp(4.0 * (np.cos(own - 0.8) - 1))
    bend = gait.knee_stance * loading + gait.knee_swing * lift
    leg = body.stature * (body.legs - 0.04)
    spread = side * gait.step_width
    knee = hip_F3 + leg * body.thigh * _direction(swing, spread)
    ankle = knee + leg * (1 - body.thigh) * _direction(swing - bend, spread)
    flat = np.full_like(phase_F, np.pi / 2) + 0.3 * np.cos(own) - 0.6 * lift
    foot = 0.14 * body.stature * _direction(flat, side * gait.toe_out)
    return knee, ankle, ankle + foot
