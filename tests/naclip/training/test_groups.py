"""Which parameters are trained, at which rates, and which decay."""

import copy

import torch
from torch import nn

from clip.convnext import ConvNeXtCLIP
from naclip.training.groups import Rates, parameter_groups, trained
from naclip.training.prompts import random_vectors
from naclip.training.step import PixelCLIPTraining
from tests.naclip.training.golden import golden, said, training


def of_names(model: nn.Module) -> dict[str, tuple[float, float]]:
    names = {parameter: name for name, parameter, _ in trained(model)}
    return {
        names[parameter]: (group['lr'], group['weight_decay'])
        for group in parameter_groups(model, Rates())
        for parameter in group['params']
    }


def test_vit():
    ours, published = of_names(training()), said('optim/groups')
    assert set(ours) == set(published)
    for name, (rate, decay) in published.items():
        assert abs(ours[name][0] - rate) <= 1e-12, name
        assert ours[name][1] == decay, name


def test_defaults_are_adamws():
    optimiser = torch.optim.AdamW(parameter_groups(training(), Rates()))
    defaults = said('optim/defaults')
    assert {key: optimiser.defaults[key] for key in defaults} == defaults | {'betas': tuple(defaults['betas'])}
    assert golden()['optim/lr_factor'][0] == 1


def test_convnext_is_trained_whole_and_its_norms_do_not_decay(convnext_parts):
    net = ConvNeXtCLIP(copy.deepcopy(convnext_parts))
    words = random_vectors(4, 2, net.token_embedding.weight.detach())
    model = PixelCLIPTraining(net, words, sharpness=1.0)
    ours = of_names(model)
    tower = 'sem_seg_head.predictor.clip_model.visual.'
    assert {name for name, _ in net.visual.named_parameters()} == {
        name.removeprefix(tower) for name in ours if name.startswith(tower)
    }
    norms = {f'{tower}{at}' for at, module in net.visual.named_modules() if isinstance(module, nn.LayerNorm)}
    assert norms
    for name, (rate, decay) in ours.items():
        norm = name.rpartition('.')[0]
        if name.startswith(tower):
            assert abs(rate - 2e-6) < 1e-15
            assert decay == (0 if norm in norms else 1e-4), name
    rates = [
        block.drop_path.drop_prob
        for stage in net.visual.trunk.stages
        for block in stage.blocks[-1:]
        if hasattr(block.drop_path, 'drop_prob')
    ]
    assert max(rates) == 0.10000000149011612
    teacher = [m for m in model.teacher_encoder.modules() if hasattr(m, 'drop_prob')]
    assert max(m.drop_prob for m in teacher) == max(rates)


def test_rates_of_convnext_steps(convnext_parts):
    """A step of the whole model on a ConvNeXt: a finite loss, and a gradient for all that is trained."""
    torch.manual_seed(0)
    net = ConvNeXtCLIP(copy.deepcopy(convnext_parts))
    model = PixelCLIPTraining(net, random_vectors(4, 2, net.token_embedding.weight.detach()), sharpness=1.0).train()
    masks = torch.rand(5, 16, 16) > 0.5
    loss = model(torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64), [masks, masks[:0]])
    loss.backward()
    assert loss.isfinite()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
