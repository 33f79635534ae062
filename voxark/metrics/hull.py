"""The lower left convex hull of the points of a ROC: exact for counts, robust for weights.

The hull's edges are the blocks of the best monotone calibration (PAV), its vertices the operating points that
minimise some detection cost, and it meets Pmiss = Pfa at the equal error rate of the convex hull.
"""

import numpy as np

_SCAN_AT_MOST = 96  # points that are scanned one after the other
_STRIDE = 16


def hull_vertices(x, y):
    """Places of the vertices of the lower left hull of points with x rising and y falling (weakly).

    ``x``, ``y`` (K,): int64 counts whose ranges have a product below 2^62, which are treated exactly, or
    float64, where a turn that rounding of the coordinates may feign is no vertex: the hull then lies within
    a few parts in 1e15 of the exact one. The first and the last point are vertices. Of equal points the first
    stands for all.
    """
    x, y = np.asarray(x), np.asarray(y)
    if not (x.dtype.kind in "iu" and y.dtype.kind in "iu"):
        x, y = x.astype(np.float64), y.astype(np.float64)
    slack = _slack(x, y)
    if len(x) == 0:
        return np.empty(0, np.int64)
    # of points at one height the first is the leftmost, and the last of them all ends the hull
    place = np.append(0, np.flatnonzero(y[1:] != y[:-1]) + 1)
    end = np.searchsorted(x, x[-1], "left")
    if end > place[-1]:
        place = np.append(place, end)
    while len(place) > _SCAN_AT_MOST:
        before = len(place)
        place = _below_coarse_hull(x, y, place, slack)
        place = _turning_left(x, y, place, slack)
        if len(place) > 0.9 * before:
            break
    return _scan(x, y, place, slack)


def lower_hull(x, y):
    """Vertices of the lower left convex hull of points with x rising and y falling (weakly): (x, y)."""
    x, y = np.asarray(x), np.asarray(y)
    place = hull_vertices(x, y)
    return x[place], y[place]


def _slack(x, y):
    """Absolute errors of differences of the coordinates: (of x, of y); zero for counts."""
    if x.dtype.kind in "iu":
        return 0, 0
    unit = 4.0 * np.finfo(np.float64).eps
    return unit * float(np.abs(x).max(initial=0.0)), unit * float(np.abs(y).max(initial=0.0))


def _is_left_turn(dx1, dy1, dx2, dy2, slack):
    """Whether steps (dx1,dy1), (dx2,dy2), dx >= 0 and dy <= 0, bend to the left by more than rounding."""
    turn = dx1 * dy2 - dy1 * dx2
    if slack == (0, 0):
        return turn > 0
    return turn > slack[1] * (dx1 + dx2) - slack[0] * (dy1 + dy2)


def _turning_left(x, y, place, slack):
    """Leave out the points on or above the line between their neighbours: no vertices, so all go at once."""
    dx, dy = np.diff(x[place]), np.diff(y[place])
    keep = np.ones(len(place), bool)
    keep[1:-1] = _is_left_turn(dx[:-1], dy[:-1], dx[1:], dy[1:], slack)
    return place[keep]


def _below_coarse_hull(x, y, place, slack):
    """Leave out the points on or above the hull of every 16th of them, which are no vertices of the whole."""
    coarse = np.append(np.arange(0, len(place) - 1, _STRIDE), len(place) - 1)
    if len(coarse) > 4 * _SCAN_AT_MOST:
        coarse = coarse[np.searchsorted(place[coarse], _below_coarse_hull(x, y, place[coarse], slack))]
    corner = np.searchsorted(place, _scan(x, y, place[coarse], slack))
    lengths = np.diff(corner)
    px, py = x[place], y[place]
    start_x, start_y = np.repeat(px[corner[:-1]], lengths), np.repeat(py[corner[:-1]], lengths)
    end_x, end_y = np.repeat(px[corner[1:]], lengths), np.repeat(py[corner[1:]], lengths)
    inner_x, inner_y = px[:-1], py[:-1]
    keep = np.ones(len(place), bool)
    keep[:-1] = _is_left_turn(inner_x - start_x, inner_y - start_y, end_x - inner_x, end_y - inner_y, slack)
    keep[corner] = True
    return place[keep]


def _scan(x, y, place, slack):
    """Andrew's monotone chain, one point after the other."""
    slack_x, slack_y = slack
    hull = []
    for point in zip(x[place].tolist(), y[place].tolist(), place.tolist()):
        px, py, _ = point
        while len(hull) > 1:
            ax, ay, _ = hull[-2]
            bx, by, _ = hull[-1]
            if (bx - ax) * (py - by) - (by - ay) * (px - bx) > slack_y * (px - ax) - slack_x * (py - ay):
                break
            hull.pop()
        hull.append(point)
    return np.array([point[2] for point in hull], np.int64)
