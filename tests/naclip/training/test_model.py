"""MMEngine's view: what the towers get, DINO's masks, schedule and groups."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import CosineAnnealingLR

from clip.guides import Guide, GuideSizes
from naclip.training import model as module
from naclip.training.model import PixelCLIPModel, TrainingGroups, TrainingPreprocessor
from tests.naclip.training.golden import golden, pictures, said


@pytest.fixture
def model(checkpoint_file, monkeypatch) -> PixelCLIPModel:
    torch.manual_seed(0)
    monkeypatch.setattr(module, 'load_dino', lambda *_: Guide(GuideSizes(128, 1, 16, 4)).requires_grad_(False))
    sizes = dict(clusters=4, resolution=32, crop=64, mask_resolution=16)
    return PixelCLIPModel(checkpoint_file, **sizes, dino='dino_vits16').train()


def sample(height: int, width: int, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    weak = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {
        'weak': [weak],
        'strong': [weak.flip(0)],
        'seed': [seed],
        'masks': [torch.ones(1, 16, 16, dtype=torch.bool)],
    }


def test_pictures_are_normalised_as_published():
    data = {'weak': list(golden()['in/images'].permute(0, 3, 1, 2)), 'strong': [], 'seed': []}
    data['strong'] = data['weak']
    torch.testing.assert_close(TrainingPreprocessor(112)(data)['weak'], pictures('in/images'), rtol=0, atol=1e-5)


def test_short_pictures_are_padded_with_zeros_after_normalisation():
    weak = TrainingPreprocessor(64)(sample(40, 50))['weak']
    assert weak.shape == (1, 3, 64, 64)
    assert not weak[..., 40:, :].any()
    assert not weak[..., 50:].any()


def test_dinos_masks(model):
    batch = model.data_preprocessor(sample(64, 64), True)
    masks = model.dino_masks(batch['weak'], [3])
    assert masks[0].shape == (16, 16, 16)
    assert (masks[0].sum(dim=0) == 1).all()
    assert torch.equal(masks[0], model.dino_masks(batch['weak'], [3])[0])
    loss = model(**batch)['loss_masks']
    loss.backward()
    assert loss > 0
    assert not model.pixelclip.dino.training
    assert all(p.grad is None for p in model.pixelclip.dino.parameters())
    assert 'dino.pos_embed' in model.pixelclip.state_dict()


def test_a_loss_that_is_no_number_is_not_stepped_on(model):
    batch = model.data_preprocessor(sample(64, 64), True)
    model.pixelclip.head.proj.bias.data.fill_(float('nan'))
    with pytest.raises(FloatingPointError, match='the loss is nan'):
        model(**batch)


def test_only_training(model):
    with pytest.raises(NotImplementedError, match=r'eval\.py'):
        model(**model.data_preprocessor(sample(64, 64), True), mode='predict')


def test_schedule():
    """The cosine to half, of all groups."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter], lr=1.0)
    schedule = CosineAnnealingLR(optimiser, T_max=10000, by_epoch=False, eta_min_ratio=0.5)
    factors = []
    for _ in range(10000):
        factors.append(optimiser.param_groups[0]['lr'])
        optimiser.step()
        schedule.step()
    found = np.array(factors)[golden()['optim/lr_iterations'].numpy()]
    np.testing.assert_allclose(found, golden()['optim/lr_factor'].numpy(), rtol=1e-6)


def test_groups(model):
    config = dict(type='OptimWrapper', optimizer=dict(type='AdamW'), clip_grad=dict(max_norm=0.01))
    wrapper = TrainingGroups(config, dict(base=1e-3, tower=0.1))(model)
    rates = sorted({group['lr'] for group in wrapper.optimizer.param_groups})
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2])
    with pytest.raises(ValueError, match='expected AdamW'):
        TrainingGroups(dict(optimizer=dict(type='SGD')))(model)
    assert said('optim/defaults')['amsgrad'] is False


def test_start_of_the_prompts(checkpoint_file):
    model = PixelCLIPModel(checkpoint_file, clusters=16)
    torch.testing.assert_close(model.pixelclip.prompts.data, golden()['prompt/tokens'])
    assert (
        F.mse_loss(
            model.pixelclip.prompts, PixelCLIPModel(checkpoint_file, clusters=16, start='vectors').pixelclip.prompts
        )
        > 0
    )
