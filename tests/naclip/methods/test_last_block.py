"""Methods: names to parts, and what is refused."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from naclip.methods import last_block as methods
from naclip.methods.last_block import METHODS, Method, find_method, method_name
from naclip.protocols import PROTOCOLS
from naclip.walk import attention


@pytest.mark.parametrize('attn', ['naclip', 'nonly', 'gav', 'kk', 'csa', 'vanilla', 'identity', 'qkv'])
@pytest.mark.parametrize('arch', ['reduced', 'vanilla', 'cls_residual'])
def test_named(attn, arch):
    method = Method.named(attn, arch, 2.5)
    assert method.attention is getattr(attention, attn)
    assert method.architecture is getattr(methods, arch)
    assert method.gaussian_std == 2.5


def test_std_defaults_to_five():
    assert Method.named('naclip', 'reduced').gaussian_std == 5.0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('clip', 'reduced'), "attention .*'clip': choose from naclip, nonly, gav, kk, csa, vanilla"),
        (('naclip', 'naclip'), "architecture .*'naclip': choose from reduced, vanilla"),
        (('naclip', 'reduced', 0), 'gaussian_std is 0, expected a number > 0'),
        (('naclip', 'reduced', -5.0), 'gaussian_std is -5.0'),
        (('naclip', 'reduced', float('nan')), 'gaussian_std is nan'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Method.named(*arguments)


def test_published_methods():
    assert METHODS['naclip'] == Method.named('naclip', 'reduced', 5.0)
    assert METHODS['sclip'] == Method.named('csa', 'vanilla')
    assert METHODS['clip'] == Method.named('vanilla', 'vanilla')


def test_published_under_known_protocols():
    assert {name: method.protocol for name, method in METHODS.items()} == {
        'naclip': 'naclip',
        'sclip': 'sclip',
        'cliptrase': 'cliptrase',
        'pixelclip': 'pixelclip',
        'clip': 'naclip',
    }
    assert {method.protocol for method in METHODS.values()} <= PROTOCOLS.keys()
    assert [name for name, method in METHODS.items() if method.pamr] == ['naclip']
    assert [name for name, method in METHODS.items() if method.regions] == ['cliptrase']


def test_found_by_name():
    assert find_method('sclip') is METHODS['sclip']
    with pytest.raises(ValueError, match=r"unknown method .*'sam': choose from naclip, sclip"):
        find_method('sam')


@pytest.mark.parametrize('name', METHODS)
def test_names(name):
    assert method_name(METHODS[name]) == name
    assert method_name(METHODS[name].but(gaussian_std=2.0)) == name
    assert method_name(METHODS[name].but('gav', 'vanilla')) == 'gav/vanilla'


def test_other_parts():
    method = METHODS['sclip'].but(architecture='reduced', gaussian_std=3.0)
    assert (method.attention, method.architecture) == (attention.csa, methods.reduced)
    assert (method.gaussian_std, method.protocol) == (3.0, 'sclip')
    assert METHODS['sclip'].but() == METHODS['sclip']
    with pytest.raises(ValueError, match='gaussian_std is 0'):
        METHODS['sclip'].but(gaussian_std=0)


def test_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        METHODS['naclip'].gaussian_std = 1.0


@torch.no_grad()
def test_architectures(model, state_dict):
    """reduced: y. vanilla: z + mlp(ln_2(z)) with z = x + y; cls_residual: the same with z = x_0 + y."""
    block = model.visual.transformer.resblocks[-1]
    weights = {k.removeprefix('visual.transformer.resblocks.2.'): v for k, v in state_dict.items()}
    x, y = torch.randn(2, 1, 7, 128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(methods.reduced(block, x, y), y)
    assert_feed_forward(methods.vanilla(block, x, y), weights, x + y)
    assert_feed_forward(methods.cls_residual(block, x, y), weights, x[:, [0] * 7] + y)


def assert_feed_forward(output, weights, z):
    t = F.layer_norm(z, (128,), weights['ln_2.weight'], weights['ln_2.bias'])
    t = t @ weights['mlp.c_fc.weight'].T + weights['mlp.c_fc.bias']
    t = t * torch.sigmoid(1.702 * t)
    expected = z + t @ weights['mlp.c_proj.weight'].T + weights['mlp.c_proj.bias']
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
