"""Attention forms against a literal transcription of their formulas, one pair of tokens at a time."""

import math

import pytest
import torch
from torch import Tensor

from naclip.walk.attention import ATTENTION_FORMS, Term, attend, attention_weights, gaussian_bias

FORMS = ['naclip', 'nonly', 'gav', 'kk', 'csa', 'vanilla', 'identity', 'qkv', 'qq']
GRIDS = [(3, 5), (4, 4), (5, 2), (1, 6), (1, 1)]


def omega(i: int, j: int, grid: tuple[int, int], std: float) -> float:
    """The bias between tokens i and j; token 0 is CLS."""
    if i == 0 or j == 0:
        return 0.0
    (r_i, c_i), (r_j, c_j) = divmod(i - 1, grid[1]), divmod(j - 1, grid[1])
    return math.exp(-((r_i - r_j) ** 2 + (c_i - c_j) ** 2) / (2 * std**2))


def softmax(row: list[float]) -> Tensor:
    powers = [math.exp(x - max(row)) for x in row]
    return torch.tensor([power / sum(powers) for power in powers], dtype=torch.float64)


def literal_weights(form: str, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], std: float) -> Tensor:
    """Queries, keys and values of one picture (heads, N, d) -> A (heads, N, N)."""
    q, k, v = q.double(), k.double(), v.double()
    heads, count, d = q.shape
    s = d**-0.5
    norm_q, norm_k = q.square().sum(-1).sqrt(), k.square().sum(-1).sqrt()
    m = s * sum(float(norm_q[head].mean() * norm_k[head].mean()) for head in range(heads)) / heads

    def logit(pair: str, head: int, i: int, j: int) -> float:
        a, b = ({'q': q, 'k': k, 'v': v}[letter] for letter in pair)
        return s * float(a[head, i] @ b[head, j])

    def row(head: int, i: int) -> Tensor:
        every = range(count)
        near = [omega(i, j, grid, std) for j in every]
        match form:
            case 'naclip':
                return softmax([logit('kk', head, i, j) + near[j] for j in every])
            case 'nonly':
                return softmax([m * near[j] for j in every])
            case 'gav':
                norms = [s * float(norm_q[head, i] * norm_k[head, j]) for j in every]
                return softmax([logit('qk', head, i, j) + norms[j] * near[j] for j in every])
            case 'qq':
                return softmax([logit('qq', head, i, j) for j in every])
            case 'kk':
                return softmax([logit('kk', head, i, j) for j in every])
            case 'csa':
                parts = (softmax([logit(pair, head, i, j) for j in every]) for pair in ('qq', 'kk'))
                return sum(parts)
            case 'qkv':
                parts = (softmax([logit(pair, head, i, j) for j in every]) for pair in ('qq', 'kk', 'vv'))
                return sum(parts)
            case 'vanilla':
                return softmax([logit('qk', head, i, j) for j in every])
            case 'identity':
                return torch.tensor([float(i == j) for j in every], dtype=torch.float64)

    return torch.stack([torch.stack([row(head, i) for i in range(count)]) for head in range(heads)])


def random_qkv(grid: tuple[int, int], pictures: int = 2, heads: int = 2, d: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (3, pictures, heads, 1 + grid[0] * grid[1], d)
    # A mean away from zero, so that norms and products do not all look alike.
    return (1.5 * torch.randn(shape, generator=generator) + 0.3).unbind()


def test_forms_are_all_tested():
    assert list(ATTENTION_FORMS) == FORMS


@pytest.mark.parametrize('std', [5.0, 0.7])
@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('form', FORMS)
def test_weights_as_the_formula(form, grid, std):
    q, k, v = random_qkv(grid)
    weights = attention_weights(ATTENTION_FORMS[form](q, k, v, grid, std))
    expected = torch.stack([literal_weights(form, q[b], k[b], v[b], grid, std) for b in range(len(q))])
    torch.testing.assert_close(weights.expand(expected.shape).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('form', FORMS)
def test_attend_is_weights_times_values(form, grid):
    q, k, v = random_qkv(grid)
    terms = ATTENTION_FORMS[form](q, k, v, grid, 2.0)
    torch.testing.assert_close(attend(terms, v), attention_weights(terms) @ v, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('form', FORMS)
def test_rows_sum_to_the_number_of_softmaxes(form):
    q, k, v = random_qkv((3, 5))
    rows = attention_weights(ATTENTION_FORMS[form](q, k, v, (3, 5), 5.0)).sum(dim=-1)
    torch.testing.assert_close(rows, torch.full_like(rows, {'csa': 2.0, 'qkv': 3.0}.get(form, 1.0)))


@pytest.mark.parametrize('form', FORMS)
def test_batch_equals_singles(form):
    q, k, v = random_qkv((3, 5), pictures=4)
    q = q * torch.tensor([0.1, 1, 2, 5]).view(4, 1, 1, 1)  # pictures whose norms differ
    batch = attend(ATTENTION_FORMS[form](q, k, v, (3, 5), 5.0), v)
    for b in range(4):
        one = [x[b : b + 1] for x in (q, k, v)]
        torch.testing.assert_close(
            batch[b : b + 1], attend(ATTENTION_FORMS[form](*one, (3, 5), 5.0), one[2]), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('form', FORMS)
def test_half_precision(form, dtype):
    q, k, v = random_qkv((3, 5))
    full = attend(ATTENTION_FORMS[form](q, k, v, (3, 5), 5.0), v)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    half = attend(ATTENTION_FORMS[form](q, k, v, (3, 5), 5.0), v)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), full, rtol=0, atol=0.02 if dtype == torch.float16 else 0.25)


@pytest.mark.parametrize('grid', [(3, 5), (4, 4), (7, 2)])
def test_gaussian_as_golden(golden, grid, device):
    expected = golden[f'gaussian/{grid[0]}x{grid[1]}/5']
    bias = gaussian_bias(grid, 5.0, device, torch.float32)
    torch.testing.assert_close(bias.cpu(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('std', [0.3, 5.0, 1e6])
@pytest.mark.parametrize('grid', GRIDS)
def test_gaussian_as_the_formula(grid, std):
    count = 1 + grid[0] * grid[1]
    expected = torch.tensor([[omega(i, j, grid, std) for j in range(count)] for i in range(count)])
    bias = gaussian_bias(grid, std, torch.device('cpu'), torch.float32)
    torch.testing.assert_close(bias, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('std', [0, -1.0, float('nan')])
def test_gaussian_needs_a_positive_std(std):
    with pytest.raises(ValueError, match='expected > 0'):
        gaussian_bias((2, 2), std, torch.device('cpu'), torch.float32)


def test_terms_add_up():
    q, k, v = random_qkv((2, 2))
    bias = torch.linspace(-1, 1, 25).view(5, 5)
    terms = [Term(q, k, bias), Term(k, q)]
    expected = sum(attention_weights([term]) for term in terms)
    torch.testing.assert_close(attention_weights(terms), expected)
    torch.testing.assert_close(attend(terms, v), expected @ v, rtol=1e-5, atol=1e-5)
