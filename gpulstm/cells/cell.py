"""What a cell is: its gates, its states and the pure functions of one time step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One row of the table of cells.

    ``forward(xp, zx, zr, states, extra) -> (states, saved)`` is one time step. zx and zr are the (B, G*H)
    pre-activations from the input and from the previous h, each with its bias, gates side by side in the
    order of ``gates``; states are (B, H) arrays in the order of ``states``, h first; extra are further
    parameters of the cell.

    ``backward(xp, dstates, saved, extra) -> (dzx, dzr, dstates_prev, dextra)`` is its derivative; the part of
    h_prev that goes through the product of the next zr is the time loop's, and dstates_prev[0] is what reaches
    h_prev besides (None for nothing).

    ``inplace`` is the same step for NumPy written into buffers that are given, where a cell has one.
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    inplace: "Inplace | None" = None


@dataclass(frozen=True)
class Inplace:
    """A step that allocates nothing, for NumPy: the contract of the cell's CUDA kernel, for whole rows.

    ``forward(gates, zr, c_prev, h, c, scratch)``: gates (B, G*H) comes in as zx with all biases and leaves as
    the activated gates; h and c (B, H) are written; scratch (B, H) is working space.

    ``coefficients(gates, c_prev, c, dz, dh_to_dc)``: everything of backward that does not wait for the step
    after, for several steps at once (leading axes free): writes dz (..., B, G*H) and dh_to_dc (..., B, H).

    ``backward(gates, dz, dh_to_dc, dh, dc)``: one step from its coefficients: dz becomes the gradient of the
    pre-activations, dc (B, H) comes in as the gradient of c and leaves as that of c_prev; dh_to_dc is used up.
    """

    forward: Callable[..., None]
    coefficients: Callable[..., None]
    backward: Callable[..., None]
