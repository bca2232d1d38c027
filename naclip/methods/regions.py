"""Regions of a picture from how alike its patches are to CLIP: CLIPtrase.

Source: Shao et al., 'Explore the Potential of CLIP for Training-Free Open Vocabulary Semantic Segmentation', ECCV 2024.
Needs scikit-learn (and SciPy, which comes with it). Shapes: H, W pixels; h, w patch grid; N = 1 + h*w tokens, CLS
first; P = h*w patches; R regions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.walk.attention import Grid

SCIKIT_LEARN = {'sklearn.cluster': 'scikit-learn'}  # what clustering requires: how to import -> how to install
UPSAMPLING = 4  # of a cluster's map, before
MEDIAN = 7  # the side of the median filter


def check_clustering(eps: float, min_samples: int) -> None:
    """Make sure that DBSCAN can work with these.

    Raises:
        ValueError: says what was expected.
    """
    if not eps > 0 or min_samples < 1:
        raise ValueError(f'eps {eps}, min_samples {min_samples}: expected > 0 and >= 1')


def denoised(affinity: Tensor) -> Tensor:
    """Affinity of tokens (N, N) -> of patches (P, P): without what CLS has in common with a patch, at least 0."""
    return (affinity[1:, 1:] - affinity[:1, 1:]).clamp(min=0)


def find_regions(affinity: Tensor, grid: Grid, size: tuple[int, int], eps: float, min_samples: int) -> Tensor | None:
    """Affinity of tokens (N, N) -> the region of each pixel (H, W) of `size`, 0 to R - 1; None: no cluster was found.

    Patches with similar rows form clusters (DBSCAN); a pixel belongs to the cluster whose mean row is highest there.
    """
    import numpy as np
    from scipy.ndimage import median_filter
    from sklearn.cluster import DBSCAN

    rows = denoised(affinity.float().cpu())
    clusters = torch.from_numpy(DBSCAN(eps=eps, min_samples=min_samples).fit_predict(rows.numpy()))  # (P,), -1: none
    count = int(clusters.max()) + 1
    if not count:
        return None
    maps = torch.stack([rows[clusters == i].mean(dim=0).unflatten(0, grid) for i in range(count)])  # (R, h, w)
    fine = F.interpolate(maps[None], scale_factor=UPSAMPLING, mode='bilinear', align_corners=False)[0]
    smooth = np.stack([median_filter(plane, size=MEDIAN) for plane in fine.numpy()])
    at_size = F.interpolate(torch.from_numpy(smooth)[None], size, mode='bilinear', align_corners=False)[0]
    return at_size.argmax(dim=0)


def majority(labels: Tensor, regions: Tensor) -> Tensor:
    """Labels (H, W) -> the most frequent label of each pixel's region (H, W); the smallest of several."""
    count = int(labels.max()) + 1
    pairs = torch.bincount((regions * count + labels).flatten(), minlength=(int(regions.max()) + 1) * count)
    return pairs.unflatten(0, (-1, count)).argmax(dim=1)[regions]
