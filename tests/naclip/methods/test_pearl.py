"""PEARL against its goldens, every key of the file, and its steps against literal loops in float64.

Its `svd` keys are of a setting that is not offered: there, the exact polar factor is put in the place of R.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from clip.model import build_model
from naclip.methods import pearl
from naclip.methods.pearl import PEARL, centred, rotation, turned_terms
from naclip.methods.propagation import conjugate_gradients, equations, propagate, text_affinity
from naclip.walk.attention import attention_weights
from naclip.walk.reading import Reading, cosine
from tests.goldens.weights import stand_in_state_dict
from tests.naclip.methods import field
from tests.naclip.methods.field import assert_near
from tests.naclip.methods.reads import all_weights

NAME = 'pearl'
VARIANTS = {'pearl': PEARL(), 'pearl_alpha.3': PEARL(alpha=0.3), 'pearl_nokk': PEARL(alpha=0.0)}
PICTURES = range(3)
TEXTS = field.texts(NAME, 'voc20')
MODES = field.settings(NAME)['modes']


def read(i):
    return Reading(field.model(NAME).visual, field.image(NAME, i))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(*shape, seed=0):
    return F.interpolate(random(*shape[:2], 5, 5, seed=seed), shape[2:], mode='bicubic')


def polar_factor(m, steps):
    u, _, v = torch.linalg.svd(m)
    return u @ v


def assert_mode(mode, i, method):
    pipeline = field.mode_pipeline(NAME, mode, method)
    labels, probabilities = pipeline(field.image(NAME, i), field.original_size(NAME, i))
    shares = probabilities / probabilities.sum(dim=1, keepdim=True)  # as the golden's are kept
    field.assert_predicted(NAME, f'predict/{mode}/{i}', labels, shares)


def of_mode(mode):
    options = MODES[mode]
    return PEARL(
        alpha=options['alpha_kk'],
        propagate=options['use_prop'] == 'on',
        grid=options['grid'],
        solver_steps=options.get('cg_iters', 25),
    )


@torch.no_grad()
@pytest.mark.parametrize('i', PICTURES)
@pytest.mark.parametrize('variant', VARIANTS)
def test_tokens(variant, i):
    assert_near(VARIANTS[variant].tokens(read(i)), field.golden(NAME)[f'dense/{variant}/{i}'])


@torch.no_grad()
@pytest.mark.parametrize('i', PICTURES)
def test_maps(i):
    maps = PEARL().maps(read(i), TEXTS)
    torch.testing.assert_close(maps[0].flatten(1), field.golden(NAME)[f'cosine/pearl/{i}'], rtol=0, atol=1e-4)
    assert torch.equal(maps, cosine(PEARL().features(read(i), TEXTS), TEXTS))


@torch.no_grad()
def test_inner():
    file = field.golden(NAME)
    q, k = centred(*read(0).qkv(12)[:2])
    assert_near(rotation(k.mT @ q, 5)[0], file['inner/R/0'])
    for vocabulary in ('voc20', 'voc21'):
        assert_near(text_affinity(field.texts(NAME, vocabulary)), file[f'inner/S/{vocabulary}'], 1e-6)


@torch.no_grad()
@pytest.mark.parametrize('i', PICTURES)
def test_propagation(i):
    file = field.golden(NAME)
    maps = field.pipeline(NAME, PEARL(), 'voc20', slide_crop=0).logits(field.image(NAME, i))
    assert_near(maps[0, :, ::4, ::4], file[f'tlp/{i}/in_every4'])
    before = maps.clone()
    assert_near(PEARL().refine(field.image(NAME, i), maps, TEXTS)[0, :, ::4, ::4], file[f'tlp/{i}/out_every4'])
    assert torch.equal(maps, before)
    assert PEARL(propagate=False).refine(field.image(NAME, i), maps, TEXTS) is maps


@pytest.mark.parametrize('i', PICTURES)
@pytest.mark.parametrize('mode', sorted(MODES.keys() - {'svd'}))
def test_predictions(mode, i):
    assert_mode(mode, i, of_mode(mode))


@torch.no_grad()
@pytest.mark.parametrize('i', PICTURES)
def test_polar_factor_would_be_another_method(i, monkeypatch):
    expected = field.golden(NAME)[f'dense/pearl_svd/{i}']
    ours = PEARL().tokens(read(i))
    assert (ours - expected).abs().max() > 0.05 * expected.abs().max()
    monkeypatch.setattr(pearl, 'rotation', polar_factor)
    assert_near(PEARL().tokens(read(i)), expected)
    assert_mode('svd', i, of_mode('svd'))


def test_rotation_nears_polar_factor():
    """Many steps get there: the product of the singular vectors."""
    m = polar_factor(random(2, 8, 8, seed=1), 0) + 0.2 * random(2, 8, 8)
    torch.testing.assert_close(rotation(m, 30), polar_factor(m, 0), rtol=0, atol=1e-3)
    assert not torch.allclose(rotation(0.01 * m @ m, 5), polar_factor(m @ m, 0), atol=1e-3)
    torch.testing.assert_close(rotation(100 * m, 5), rotation(m, 5), rtol=0, atol=1e-4)


def test_attention_by_its_formula():
    q, k = random(2, 2, 3, 7, 8).double()
    lengths = torch.cat([torch.zeros(2, 3, 1), q[:, :, 1:].square().sum(dim=-1).sqrt()], dim=-1)
    shares = lengths / (lengths.sum(dim=-1, keepdim=True) + 1e-6)
    q_c, k_c = (x - torch.einsum('bhn,bhnd->bhd', shares, x)[:, :, None] for x in (q, k))
    r = rotation(torch.einsum('bhnd,bhne->bhde', k_c, q_c), 5)
    logits = torch.einsum('bhid,bhjd->bhij', q, k @ r) + 0.3 * torch.einsum('bhid,bhjd->bhij', k_c, k_c)
    torch.testing.assert_close(attention_weights(turned_terms(q, k, 0.3, 5)), torch.softmax(logits / 8**0.5, dim=-1))


@torch.no_grad()
def test_weights_make_the_tokens():
    """By the formula, head by head."""
    reading = read(0)
    q, k, v = (part[0] for part in reading.qkv(12))  # (heads, N, d)
    shares = F.pad(q[:, 1:].norm(dim=-1), (1, 0))
    shares = (shares / (shares.sum(dim=-1, keepdim=True) + 1e-6))[..., None]
    q_c, k_c = (x - (shares * x).sum(dim=1, keepdim=True) for x in (q, k))
    turned = k @ rotation(k_c.mT @ q_c, 5)
    heads = torch.softmax((q @ turned.mT + 0.08 * k_c @ k_c.mT) / q.shape[-1] ** 0.5, dim=-1)
    merged = torch.cat([weights @ values for weights, values in zip(heads, v, strict=True)], dim=-1)
    tokens = reading.project(reading.block(12).attn.out_proj(merged))[1:]
    assert_near(PEARL().features(reading, None)[0].flatten(0, 1), tokens)
    patches, cls = all_weights(PEARL(), reading)
    torch.testing.assert_close(patches, heads.mean(dim=0)[1:, 1:], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(cls, heads.mean(dim=0)[1:, 0], rtol=1e-3, atol=1e-6)


def literal_system(gray, logits, texts):
    """The matrix (cells, cells) and the confidence (cells,) of one picture's cells, pair by pair, in float64."""
    height, width = gray.shape
    near = torch.softmax(2 * texts.double() @ texts.double().T, dim=-1).diagonal() + 10
    near = near / (11 + 1e-6)
    p = torch.softmax(logits.double(), dim=0)

    def agree(a, b):
        return min(max(float((near * p[:, *a] * p[:, *b]).sum()), 0), 1)

    cells = [(y, x) for y in range(height) for x in range(width)]
    matrix, confidence = torch.zeros(2, len(cells), len(cells), dtype=torch.float64)
    for i, cell in enumerate(cells):
        confidence[i, i] = max(0.05, float(p[:, *cell].max())) ** 2 * (1 + agree(cell, cell))
    for down, across in ((1, 0), (0, 1)):
        pairs = [(a, b) for a in cells for b in [(a[0] + down, a[1] + across)] if b in cells]
        mean = sum(abs(float(gray[a] - gray[b])) for a, b in pairs) / max(len(pairs), 1)
        for a, b in pairs:
            edge = math.exp(-5 * abs(float(gray[a] - gray[b])) / (mean + 1e-6)) * (1 + agree(a, b))
            edge = min(max(edge, 0), 1)
            i, j = cells.index(a), cells.index(b)
            matrix[[i, j], [i, j]] += edge
            matrix[[i, j], [j, i]] -= edge
    return matrix + confidence, confidence.diagonal()


@pytest.mark.parametrize(('y', 'x'), [(4, 6), (5, 1), (1, 4), (1, 1)])
def test_equations_by_literal_pairs(y, x):
    gray, logits, texts = random(2, 1, y, x), 2 * random(2, 3, y, x, seed=1), F.normalize(random(3, 8), dim=-1)
    system, right = equations(gray, logits, texts)
    solved = conjugate_gradients(system, right, logits, 60)
    every = torch.eye(y * x).view(1, y * x, y, x).expand(2, -1, -1, -1)
    matrices = system.times(every).flatten(2)
    for i in range(2):
        matrix, confidence = literal_system(gray[i, 0], logits[i], texts)
        torch.testing.assert_close(matrices[i].double(), matrix, rtol=1e-4, atol=1e-5)
        expected = confidence * logits[i].flatten(1).double()
        torch.testing.assert_close(right[i].flatten(1).double(), expected, rtol=1e-4, atol=1e-5)
        solution = torch.linalg.solve(matrix, expected.T).T
        torch.testing.assert_close(solved[i].flatten(1).double(), solution, rtol=1e-3, atol=1e-4)


def test_names_share_step_lengths():
    """Each step goes to the lowest point along its direction, for the names of a picture together."""
    logits, texts = random(1, 3, 4, 5), F.normalize(random(3, 8), dim=-1)
    system, right = equations(random(1, 1, 4, 5), logits, texts)
    rest = right - system.times(logits)
    length = rest.square().sum() / (rest * system.times(rest)).sum()
    torch.testing.assert_close(conjugate_gradients(system, right, logits, 1), logits + length * rest)
    assert torch.equal(conjugate_gradients(system, right, logits, 0), logits)


def test_cells():
    """Sides of the cells are rounded, each for itself, to at least one pixel; a remainder is dropped."""
    pictures, maps, texts = smooth(1, 3, 34, 61), smooth(1, 4, 34, 61, seed=1), F.normalize(random(4, 8), dim=-1)
    cells = F.avg_pool2d(maps, (3, 6))
    gray = F.avg_pool2d((torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1) * pictures).sum(1, True), (3, 6))
    system, right = equations(gray, cells, texts)
    solved = conjugate_gradients(system, right, cells, 8)
    expected = F.interpolate(solved, (34, 61), mode='bilinear', align_corners=False)
    torch.testing.assert_close(propagate(pictures, maps, texts, 10, 8), expected)
    assert propagate(pictures, maps, texts, 500, 8).shape == maps.shape


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (7, 1)])
def test_small_and_uniform_pictures(size):
    maps, texts = random(2, 3, *size), F.normalize(random(3, 8), dim=-1)
    assert propagate(torch.zeros(2, 3, *size), maps, texts, 80, 25).isfinite().all()
    flat = torch.full_like(maps, 0.2)
    torch.testing.assert_close(propagate(torch.zeros(2, 3, *size), flat, texts, 80, 25), flat)


@torch.no_grad()
@pytest.mark.parametrize('size', [(70, 90), (96, 48)])
def test_batch_equals_singles(size):
    visual, batch = field.model(NAME).visual, smooth(3, 3, *size)
    features = PEARL().features(Reading(visual, batch), TEXTS)
    assert features.shape == (3, size[0] // 16, size[1] // 16, 64)
    singles = [PEARL().features(Reading(visual, window[None]), TEXTS) for window in batch]
    assert_near(features, torch.cat(singles), 1e-4)
    maps = 0.2 * smooth(3, len(TEXTS), *size, seed=1)
    refined = PEARL(grid=40).refine(batch, maps, TEXTS)
    assert_near(refined, torch.cat([PEARL(grid=40).refine(batch[i : i + 1], maps[i : i + 1], TEXTS) for i in range(3)]))


@torch.no_grad()
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    half = build_model(stand_in_state_dict(**field.settings(NAME)['tower'])).cast(dtype)
    batch = smooth(2, 3, 80, 112)
    features = PEARL().features(Reading(half.visual, batch), TEXTS)
    expected = PEARL().features(Reading(field.model(NAME).visual, batch), TEXTS)
    assert features.dtype == dtype
    assert F.cosine_similarity(features.float(), expected, dim=-1).min() > 0.98
    maps = 0.2 * smooth(2, len(TEXTS), 80, 112)
    assert PEARL().refine(batch.to(dtype), maps, TEXTS).dtype == torch.float32


@pytest.mark.parametrize(
    ('constants', 'message'),
    [
        ({'alpha': -0.1}, 'alpha is -0.1, expected a number >= 0'),
        ({'alpha': math.nan}, 'alpha is nan'),
        ({'grid': 0}, 'grid is 0, expected a whole number >= 1'),
        ({'solver_steps': -1}, 'solver_steps is -1, expected a whole number >= 0'),
        ({'rotation_steps': -5}, 'rotation_steps is -5'),
    ],
)
def test_bad_constants(constants, message):
    with pytest.raises(ValueError, match=message):
        PEARL(**constants)
