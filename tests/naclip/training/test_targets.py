"""Unions of each cluster's masks."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from naclip.training.targets import cluster_unions


@given(st.lists(st.integers(0, 4), max_size=8))
def test_unions_are_what_any_mask_of_the_cluster_covers(labels):
    masks = torch.rand(len(labels), 3, 5, generator=torch.Generator().manual_seed(len(labels))) > 0.5
    unions = cluster_unions(masks, torch.tensor(labels, dtype=torch.long), 5)
    for k in range(5):
        own = [mask for mask, label in zip(masks, labels, strict=True) if label == k]
        expected = torch.stack(own).any(dim=0) if own else torch.zeros(3, 5, dtype=torch.bool)
        assert torch.equal(unions[k], expected.float())
