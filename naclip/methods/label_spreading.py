"""Labels spread over a graph: the graphs of LPOSS, and the few steps of conjugate gradients that solve for them.

Shapes: n nodes of a graph; k neighbours; Q names; H, W pixels; O offsets between pixels.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from naclip.walk.windows import Window

BLOCK = 1 << 24  # cosines that are held at once
LAB_SCALE = (100.0, 128.0, 128.0)
TOLERANCE = 1e-6


def conjugate_gradients(apply: Callable[[Tensor], Tensor], right: Tensor, steps: int) -> Tensor:
    """`steps` of conjugate gradients, from zero, on A X = B for each column of B (n, Q), which is `right`.

    `apply` multiplies by A. A column that is solved up to TOLERANCE times its length is left as it is.
    """
    x = torch.zeros_like(right)
    for solution, _, _ in _steps(apply, right, steps):
        x = solution
    return x


def response(apply: Callable[[Tensor], Tensor], right: Tensor, steps: int, node: int) -> Tensor:
    """With which weights what `conjugate_gradients` gives at a node (Q,) is made of the columns of B: (n, Q).

    The lengths of the steps depend on B; with these lengths they are a polynomial of A, the symmetric, for each column.
    """
    x, r = torch.zeros_like(right), torch.zeros_like(right)
    r[node] = 1
    p = r
    for alpha, beta in [lengths for _, *lengths in _steps(apply, right, steps)]:
        x, r = x + alpha * p, r - alpha * apply(p)
        p = r + beta * p
    return x


def _steps(apply: Callable[[Tensor], Tensor], right: Tensor, steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """After each step its solution (n, Q), its length, and the share of its direction in the next (Q,)."""
    x, r, p = torch.zeros_like(right), right, right
    rho = r.square().sum(dim=0)
    enough = TOLERANCE**2 * rho
    for _ in range(steps):
        going = rho > enough
        if not going.any():
            break
        q = apply(p)
        alpha = torch.where(going, rho / (p * q).sum(dim=0), 0)
        x, r = x + alpha * p, r - alpha * q
        after = r.square().sum(dim=0)
        beta = torch.where(going, after / rho, 0)
        p = r + beta * p
        rho = torch.where(going, after, rho)
        yield x, alpha, beta


def positions(boxes: Sequence[Window], grid: tuple[int, int], patch_size: int) -> Tensor:
    """Row and column, in pixels, of the middles of the patches of all windows, stacked (n, 2), float64."""
    rows, columns = (patch_size // 2 + patch_size * torch.arange(cells).double() for cells in grid)
    cells = torch.cartesian_prod(rows, columns)
    return torch.cat([cells + cells.new_tensor([box.top, box.left]) for box in boxes])


def patch_graph(features: Tensor, places: Tensor, neighbours: int, decay: float) -> Tensor:
    """Normalised weights between patches with unit features (n, D) at places (n, 2): (n, n), sparse, float64.

    Each patch gives max(S, 0)^3 exp(-decay * distance) to its most alike ones, itself among them; the graph is the sum
    of both directions, without loops.
    """
    n = len(features)
    k = min(neighbours, n)
    near = [(some @ features.T).topk(k) for some in features.split(max(BLOCK // n, 1))]
    cosines, index = torch.cat([part.values for part in near]), torch.cat([part.indices for part in near])
    distance = (places[:, None] - places[index]).norm(dim=-1)
    weights = cosines.double().clamp(min=0) ** 3 * torch.exp(-decay * distance)
    rows = torch.arange(n, device=index.device).repeat_interleave(k)
    columns, weights = index.flatten(), weights.flatten()
    weights = torch.where(rows == columns, 0, weights)
    degree = torch.zeros(n, dtype=weights.dtype, device=weights.device)
    degree.index_add_(0, rows, weights).index_add_(0, columns, weights)
    root = torch.where(degree > 0, degree, 1).rsqrt()
    weights = weights * root[rows] * root[columns]
    both = torch.stack([torch.cat([rows, columns]), torch.cat([columns, rows])])
    graph = torch.sparse_coo_tensor(both, weights.repeat(2), (n, n), check_invariants=False).coalesce()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Sparse CSR tensor support is in beta state', UserWarning)
        return graph.to_sparse_csr()  # products are several times as fast


def spread_over_patches(graph: Tensor, maps: Tensor, alpha: float, steps: int) -> Tensor:
    """(I - alpha W)^-1 Y of maps (n, Q), as far as `steps` of conjugate gradients come; float64."""
    return conjugate_gradients(_away_from(graph, alpha), maps.double(), steps)


def patch_response(graph: Tensor, maps: Tensor, alpha: float, steps: int, patch: int) -> Tensor:
    """With which weights `spread_over_patches` gathers a patch's values from maps (n, Q), of each map: (n, Q)."""
    return response(_away_from(graph, alpha), maps.double(), steps, patch)


def _away_from(graph: Tensor, alpha: float) -> Callable[[Tensor], Tensor]:
    """The product with I - alpha W."""
    return lambda p: p - alpha * (graph @ p)


def lab(pictures: Tensor) -> Tensor:
    """RGB in [0, 1], sRGB (B, 3, H, W) -> CIELAB under D65, each channel over LAB_SCALE."""
    linear = torch.where(pictures > 0.04045, ((pictures + 0.055) / 1.055).clamp(min=0) ** 2.4, pictures / 12.92)
    to_xyz = linear.new_tensor(
        [
            [0.412453, 0.357580, 0.180423],
            [0.212671, 0.715160, 0.072169],
            [0.019334, 0.119193, 0.950227],
        ]
    )
    white = linear.new_tensor([0.95047, 1.0, 1.08883])
    xyz = torch.einsum('ij,bjhw->bihw', to_xyz / white[:, None], linear)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0) ** (1 / 3), 7.787 * xyz + 4 / 29)
    x, y, z = f.unbind(1)
    channels = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
    return channels / channels.new_tensor(LAB_SCALE)[:, None, None]


def half_offsets(reach: int) -> list[tuple[int, int]]:
    """Half of the offsets within `reach` rows and columns; the others are their opposites, and (0, 0) is left out."""
    return [(dy, dx) for dy in range(reach + 1) for dx in range(-reach, reach + 1) if dy > 0 or dx > 0]


def pair(plane: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Of a plane (..., H, W), the pixels that have one at an offset, and these: views (..., H - dy, W - |dx|)."""
    dy, dx = offset
    h, w = plane.shape[-2:]
    first = plane[..., : h - dy, max(-dx, 0) : w - max(dx, 0)]
    return first, plane[..., dy:, max(dx, 0) : w - max(-dx, 0)]


def pixel_graph(colours: Tensor, reach: int, tau: float) -> list[Tensor]:
    """Normalised weights between the pixels of colours (3, H, W), for each of `half_offsets`: as `pair` has them."""
    h, w = colours.shape[-2:]
    offsets = [(dy, dx) for dy, dx in half_offsets(reach) if dy < h and abs(dx) < w]
    weights = []
    degree = colours.new_zeros(h, w)
    for offset in offsets:
        a, b = pair(colours, offset)
        weights.append(torch.exp(-(a - b).norm(dim=0) / tau))
        for end in pair(degree, offset):
            end += weights[-1]
    root = torch.where(degree > 0, degree, 1).rsqrt()
    for offset, some in zip(offsets, weights, strict=True):
        a, b = pair(root, offset)
        some *= a * b
    return list(zip(offsets, weights, strict=True))


def spread_over_pixels(graph: list, maps: Tensor, alpha: float, steps: int, names_at_once: int = 8) -> Tensor:
    """As `spread_over_patches`, on `pixel_graph`: maps (Q, H, W) -> same, float64; a few names at a time.

    The graph is a list of shifted pictures, so that no edge needs an index.
    """
    size = maps.shape[-2:]

    def apply(p: Tensor) -> Tensor:
        planes = p.T.unflatten(1, size)
        spread = torch.zeros_like(planes)
        for offset, weights in graph:
            (a, b), (to_a, to_b) = pair(planes, offset), pair(spread, offset)
            to_a.addcmul_(weights, b)
            to_b.addcmul_(weights, a)
        return p - alpha * spread.flatten(1).T

    solved = [
        conjugate_gradients(apply, some.double().flatten(1).T, steps).T.unflatten(1, size)
        for some in maps.split(names_at_once)
    ]
    return torch.cat(solved)
