"""AVA's protocols row by row, in plain Python: what the arrays are compared with.

Ties: of rows that score the same, the official heap is fed the greatest first, and the curve has
the wrong ones first. Ground-truth boxes go by falling person ids, then by y1, x1, y2, x2.
"""

import heapq
import math
from collections import defaultdict


def key_of(row):
    return f"{row[0]},{float(row[1]):.6f}"


def images_of(rows, ids):
    """(score, action, y1, x1, y2, x2) of each keyframe; those without boxes are empty."""
    images = {}
    for row in rows:
        image = images.setdefault(key_of(row), [])
        if len(row) > 2 and int(row[6]) in ids:
            x1, y1, x2, y2 = map(float, row[2:6])
            image.append((float(row[7]) if len(row) > 7 else 1.0, int(row[6]), y1, x1, y2, x2))
    return images


def first_fifty(rows):
    heap = []
    for row in sorted(rows, reverse=True):
        if len(heap) < 50:
            heapq.heappush(heap, row)
        elif row[0] > heap[0][0]:
            heapq.heapreplace(heap, row)
    return heap


def iou(a, b):
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return height * width / (areas[0] + areas[1] - height * width)


def curve_area(outcomes, boxes):
    """Outcomes (score, right), average precision with the envelope of precision."""
    if not boxes:
        return math.nan
    right, points = 0, []
    for seen, (_, is_right) in enumerate(sorted(outcomes, key=lambda o: (-o[0], o[1])), 1):
        right += is_right
        points.append((right / boxes, right / seen))
    area = last = 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - last) * max(precision for _, precision in points[i:])
        last = recall
    return area


def average_precisions(truth_rows, rows, ids, protocol, excluded=()):
    """Average precision of each id; NaN of those without ground truth."""
    out = {key_of(row) for row in excluded}
    truth = images_of((r for r in truth_rows if key_of(r) not in out), ids)
    detected = images_of((r for r in rows if key_of(r) not in out), ids)
    boxes, outcomes = defaultdict(int), defaultdict(list)
    for image in truth.values():
        for row in image:
            boxes[row[1]] += 1
    for key, image in detected.items():
        annotated = truth.get(key, [])
        if protocol == "official":
            if key not in truth:
                continue
            image = sorted(first_fifty(image), key=lambda row: -row[0])
            annotated = sorted(annotated, key=lambda row: (-row[0], row[2:]))
        image = [row for row in image if row[2] < row[4] and row[3] < row[5]]
        for action in ids:
            of_class = [row[2:] for row in annotated if row[1] == action]
            taken = set()
            for score, _, *box in (row for row in image if row[1] == action):
                overlaps = [iou(box, other) for other in of_class]
                best = overlaps.index(max(overlaps)) if overlaps else None
                right = best is not None and overlaps[best] >= 0.5 and best not in taken
                taken |= {best} if right else set()
                outcomes[action].append((score, right))
    return [curve_area(outcomes[action], boxes[action]) for action in ids]
