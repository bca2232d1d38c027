"""CorrCLIP: region masks and a DINO say which patches may attend to each other; three branches are summed.

Shapes: B windows; H, W pixels; h, w patch grid, of CLIP or of the guide; n = h*w patches of one window; r regions of a
window; N = 1 + h*w tokens of CLIP, CLS first; D width of CLIP's tower; C joint width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.methods.guided import gather, softmax_of, unit_similarity
from naclip.methods.method import About, Method
from naclip.walk.attention import Grid
from naclip.walk.gathering import Gathered, Place, in_window, patch_index
from naclip.walk.reading import Reading, Tower
from naclip.walk.windows import Margins, pad_centred

PADDING = 10000  # the id of what lies around a window


def nearest(ids: Tensor, grid: Grid) -> Tensor:
    """Ids (H, W) on another grid, nearest."""
    return F.interpolate(ids[None, None].double(), grid, mode='nearest')[0, 0].long()


def window_regions(ids: Tensor, margins: Margins, grid: Grid) -> Tensor:
    """The ids of a window's pixels (H, W) on the guide's grid (h, w); its margins are a region of their own."""
    padded = F.pad(ids, (margins.left, margins.right, margins.top, margins.bottom), value=PADDING)
    return nearest(padded, grid)


def merged_regions(ids: Tensor, features: Tensor, distance: float) -> Tensor:
    """Regions that look alike become one: ids (n,), unit features (n, D) -> numbers from 0 (n,).

    0 is the smallest id, which counts as no region, whatever it is. Regions whose mean features are alike up to
    `distance` below the greatest similarity are joined, and so are those that they are joined with: what DBSCAN makes
    of them when one is enough for a cluster.
    """
    from scipy.sparse.csgraph import connected_components  # takes a while, and other methods do not need it

    present, number = ids.unique(return_inverse=True)  # ascending
    if len(present) <= 2:
        return number
    members = F.one_hot(number).to(features)[:, 1:]  # (n, r)
    means = F.normalize(members.T @ features, dim=-1)
    similarity = means @ means.T
    near = similarity.max() - similarity <= distance
    _, joined = connected_components(near.cpu().numpy(), directed=False)
    joined = torch.from_numpy(joined).to(number).add(1)
    return torch.cat([joined.new_zeros(1), joined])[number]


def allowed_pairs(regions: Tensor, similarity: Tensor) -> Tensor:
    """Which patches may attend to each other (n, n): those of one region; those of none to what is like them."""
    same = regions[:, None] == regions
    nothing = regions == 0
    loose = nothing[:, None] | nothing
    return torch.where(loose, similarity > similarity.mean(), same)


def region_tokens(reading: Reading, i: int, regions: Tensor) -> Tensor:
    """Copies of window i's CLS token, each of which sees CLS and the patches of one region (r, D).

    `regions` (h, w), numbers below r on CLIP's grid. The copies pass all blocks, and nothing sees them, themselves
    included; so the other tokens are those that the reading has.
    """
    flat = regions.flatten()
    sees = F.one_hot(flat).T.bool()  # (r, n)
    sees = F.pad(sees, (1, 0), value=True)[None, None]  # (1, 1, r, N)
    x = reading.tokens(0)[i : i + 1, :1].expand(1, sees.shape[2], -1)  # (1, r, D)
    for layer in range(1, reading.depth + 1):
        block = reading.block(layer)
        q, _, _ = block.attn.qkv(block.ln_1(x))
        _, k, v = (part[i : i + 1] for part in reading.qkv(layer))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=sees)
        x = block.feed_forward(x + block.attn.merge(y))
    return x[0]


def majority(regions: Tensor, labels: Tensor) -> Tensor:
    """Each region of a picture but the smallest id takes its most frequent label, the smallest of equals; (H, W)."""
    _, number = regions.unique(return_inverse=True)
    count = labels.max() + 1
    votes = torch.bincount((number * count + labels).flatten(), minlength=int(count * (number.max() + 1)))
    votes = votes.view(-1, int(count))
    best = (votes == votes.amax(dim=1, keepdim=True)).int().argmax(dim=1)  # the first of equals
    return torch.where(number == 0, labels, best[number])


@dataclass(frozen=True)
class CorrCLIP(Method):
    """Attention within merged regions, by the guide's similarity; main, spatial and semantic branch.

    Raises:
        ValueError: a constant that makes no sense.
    """

    about: ClassVar[About] = About(
        title='CorrCLIP',
        paper='arXiv:2411.10086, ICCV 2025',
        code='zdk258/CorrCLIP 103bc18',
        licence='see there',
        reads="blocks 6 to 10 and the last block's values; a DINO's queries and keys; region masks",
    )
    protocol: ClassVar[str] = 'corrclip'
    needs_regions: ClassVar[bool] = True
    by_depth: ClassVar[Mapping[int, Mapping[str, object]]] = {
        2: {'guide': 'shapes', 'multiple': 8, 'layers': (1, 1)},
        24: {'layers': (11, 22)},
        32: {'layers': (3, 30)},
        40: {'layers': (3, 38)},
        48: {'layers': (3, 46)},
    }
    guide: str = 'dino_vitb8'  # a name of clip.guides.available_guides(), or a checkpoint file
    distance: float = 0.2  # regions that are less apart become one
    sharpness: float = 4.0  # of the attention by similarity
    layers: tuple[int, int] = (6, 10)  # first and last of the blocks whose mean output the spatial branch reads
    semantic: float = 0.5  # the weight of the semantic branch
    multiple: int = 56  # pixels: windows are padded with zeros to multiples of this, whatever the patches are

    def __post_init__(self):
        if not 0 <= self.distance <= 2:
            raise ValueError(f'distance is {self.distance}, expected a number from 0 to 2')
        if len(self.layers) != 2 or not 1 <= self.layers[0] <= self.layers[1]:
            raise ValueError(f'layers is {self.layers}, expected two, the first and the last')
        if self.multiple < 1:
            raise ValueError(f'multiple is {self.multiple}, expected a number of pixels above 0')

    def read(self, visual: Tower, windows: Tensor) -> Reading:
        padded, margins = pad_centred(windows, self.multiple)
        return Reading(visual, padded, margins=margins)

    def correlate(self, reading: Reading) -> tuple[Tensor, list[Tensor]]:
        """Attention weights (B, n, n), and the merged regions of each window on the guide's grid (h, w)."""
        guide = reading.guide
        features = F.normalize((guide.q + guide.k).flatten(1, 2).float(), dim=-1)
        similarity = unit_similarity(guide.q + guide.k)
        weights, regions = [], []
        for i, ids in enumerate(reading.regions):
            cells = window_regions(ids, reading.margins, guide.grid).flatten()
            merged = merged_regions(cells, features[i], self.distance)
            pairs = allowed_pairs(merged, similarity[i])
            weights.append(softmax_of(self.sharpness * similarity[i], pairs))
            regions.append(merged.view(guide.grid))
        return torch.stack(weights), regions

    def branches(self, reading: Reading) -> tuple[Tensor, Tensor, Tensor]:
        """Main, spatial and semantic branch, before the last norm, each (B, n, D).

        Raises:
            ValueError: the tower has too few blocks.
        """
        first, last = self.layers
        if last >= reading.depth:
            raise ValueError(
                f'method {self.name} reads blocks {first} to {last} before the last block, and the tower has '
                f'{reading.depth} blocks: use a tower with more, or set layers below {reading.depth}'
            )
        weights, regions = self.correlate(reading)
        grid = reading.guide.grid
        main = gather(reading, reading.tokens(reading.depth - 1), weights, grid)
        mean = sum(reading.tokens(layer) for layer in range(first, last + 1)) / (last - first + 1)
        spatial = gather(reading, mean, weights, grid)
        semantic = []
        for i, merged in enumerate(regions):
            cells = nearest(merged, reading.grid)
            tokens = region_tokens(reading, i, cells)
            semantic.append(tokens[nearest(cells, grid).flatten()])
        return main, spatial, torch.stack(semantic)

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        main, spatial, semantic = map(reading.visual.ln_post, self.branches(reading))
        summed = main + spatial + self.semantic * semantic
        return (summed @ reading.visual.proj).unflatten(1, reading.guide.grid)

    def patch_grid(self, reading: Reading) -> Grid:
        return reading.guide.grid

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """Those of the guide's patches in main and spatial branch; the semantic branch does not gather from patches."""
        grid, (attention, _) = self.patch_grid(reading), self.correlate(reading)
        return in_window(attention[place.window, patch_index(place, grid)], grid, place, len(attention))

    def vote_regions(self, regions: Tensor, labels: Tensor) -> Tensor:
        return majority(regions, labels[0, 0])[None, None]
