"""FLOSS against its goldens: entropies, choices, experts, fused probabilities; and what is refused."""

import json
from functools import cache, partial

import pytest
import torch

from naclip.floss import Entropies, ExpertPipeline, TemplateRanking, rank_templates, ranking_record, read_ranking
from naclip.methods.lposs import LPOSS
from naclip.methods.naclip import NACLIP
from naclip.pipeline import Pipeline, Settings
from naclip.walk.text import read_templates, text_embeddings
from naclip.walk.vocabulary import Vocabulary
from tests.naclip.methods import guided_goldens as goldens

golden, image = partial(goldens.golden, 'floss'), partial(goldens.image, 'floss')
PERSON = tuple(f'person in {what}' for what in ('shirt', 'jeans', 'dress', 'sweater', 'skirt', 'jacket'))
CLASSES = {
    'plain': (('cat',), ('dog',), ('water',), ('car',), ('grass',)),
    'synonyms': (
        ('ship',),
        ('table',),
        ('person', *PERSON),
        ('television monitor', 'tv monitor', 'monitor', 'television', 'screen'),
    ),
}
WINDOWS = {'plain': dict(slide_crop=64, slide_stride=32), 'synonyms': dict(slide_crop=0)}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@cache
def embeddings(vocabulary: str) -> torch.Tensor:
    """The text embeddings of each template (T, Q, C)."""
    queries = Vocabulary(CLASSES[vocabulary]).queries
    return torch.stack([text_embeddings(goldens.model(), queries, [t], progress=False) for t in read_templates()])


@cache
def entropies(vocabulary: str) -> Entropies:
    settings = Settings(logit_scale=100, **WINDOWS[vocabulary])
    mine = Vocabulary(CLASSES[vocabulary])
    pipeline = Pipeline(goldens.model(), NACLIP(), mine, embeddings(vocabulary)[0], settings)
    pictures = [(image(i), goldens.original_size('floss', i)) for i in range(3)]
    return rank_templates(pipeline, pictures, embeddings(vocabulary))


def experts_of(vocabulary: str, chosen) -> torch.Tensor:
    templates, queries = read_templates(), Vocabulary(CLASSES[vocabulary]).queries
    of_classes = [[templates[t] for t in some] for some in chosen]
    return torch.stack([text_embeddings(goldens.model(), queries, some, progress=False) for some in of_classes])


@pytest.mark.slow
@pytest.mark.parametrize('vocabulary', CLASSES)
def test_entropies_and_choices_as_golden(vocabulary):
    mine = entropies(vocabulary)
    expected, tied = golden()[f'{vocabulary}/entropy'], golden()[f'{vocabulary}/near_tied_pixels']
    total = mine.pixels.sum(dim=1, keepdim=True)
    pixels = golden()[f'{vocabulary}/pixel_percentage'] / 100 * total
    off = (mine.pixels - pixels).abs()
    assert (off <= tied + 1.5).all()  # a pixel of 40,000 is near a tie for us that was not for them
    clear = (tied == 0) & (mine.pixels > 0) & (off < 0.5)
    assert clear.sum() > 200
    assert (mine.means - expected)[clear].abs().max() < 1e-4
    chosen = TemplateRanking(tuple(map(tuple, mine.ranking()))).chosen(Vocabulary(CLASSES[vocabulary]), 80)
    assert [list(some) for some in chosen] == golden()[f'{vocabulary}/chosen'].tolist()


@pytest.mark.parametrize('vocabulary', CLASSES)
def test_predictions_as_golden(vocabulary):
    mine = Vocabulary(CLASSES[vocabulary])
    experts = experts_of(vocabulary, golden()[f'{vocabulary}/chosen'].tolist())
    default = text_embeddings(goldens.model(), mine.queries, read_templates(), progress=False)
    expected = golden()[f'{vocabulary}/expert_features']
    assert list(mine.query_idx) == golden()[f'{vocabulary}/query_idx'].tolist()
    at = 0 if torch.allclose(expected[0], default, atol=1e-4) else -1
    goldens.assert_near(default, expected[at], 1e-5)
    goldens.assert_near(experts[list(mine.query_idx)], expected[1:] if at == 0 else expected[:-1], 1e-5)
    settings = Settings(logit_scale=100, **WINDOWS[vocabulary])
    pipeline = ExpertPipeline(goldens.model(), NACLIP(), mine, default, settings, experts=experts)
    for i in range(3):
        size = goldens.original_size('floss', i)
        maps = pipeline.logits(image(i), size)
        goldens.assert_near(maps[0, :, ::4, ::4], golden()[f'{vocabulary}/fused_every4/{i}'], 1e-4)
        labels, probabilities = pipeline(image(i), size)
        goldens.assert_predicted('floss', f'{vocabulary}/{i}', labels, probabilities, 5e-4)


def few(tmp_path) -> tuple[Entropies, Vocabulary]:
    vocabulary = Vocabulary((('cat',), ('dog', 'puppy')))
    mine = Entropies(3, vocabulary)
    generator = torch.Generator().manual_seed(0)
    for t in range(3):
        mine.add(t, 0.1 * torch.randn(1, 3, 8, 8, generator=generator))
    return mine, vocabulary


def test_a_file_comes_back(tmp_path):
    mine, vocabulary = few(tmp_path)
    (tmp_path / 'r.json').write_text(json.dumps(ranking_record(mine, vocabulary, ['a {}', 'b {}', 'c {}'])))
    ranking = read_ranking(tmp_path / 'r.json')
    assert [list(some) for some in ranking.classes] == mine.ranking()
    assert [len(some) for some in ranking.chosen(vocabulary, 3, 2)] == [2, 2]


def test_entropy_by_hand():
    mine = Entropies(1, Vocabulary((('cat',), ('dog', 'puppy'))))
    maps = torch.tensor([0.01, 0.02, 0.0]).view(1, 3, 1, 1)
    p = torch.softmax(100 * maps.double(), dim=1).flatten()
    best = torch.tensor([p[0], max(p[1], p[2])])
    mine.add(0, maps.clone())
    assert mine.pixels.tolist() == [[0, 1]]
    assert float(mine.means[0, 1]) == pytest.approx(float(-(best * best.log()).sum()), abs=1e-6)
    assert mine.ranking() == [[], [0]]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"classes": {"cat": {}}}', r"KeyError: 'entropy_ranking'\): expected JSON with classes -> entropy_ranking"),
        ('[]', r'expected JSON with classes -> entropy_ranking -> template_id'),
        ('nothing', r'cannot be read \(JSONDecodeError'),
    ],
)
def test_what_is_no_ranking(tmp_path, content, message):
    (tmp_path / 'r.json').write_text(content)
    with pytest.raises(ValueError, match=message):
        read_ranking(tmp_path / 'r.json')
    with pytest.raises(FileNotFoundError, match=r'none\.json does not exist; tools/floss\.py makes one'):
        read_ranking(tmp_path / 'none.json')


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (((0,),), 'has 1 classes, the vocabulary has 2'),
        (((0,), ()), "no template for 'dog': none ever predicted it"),
        (((0,), (3,)), "of 'dog' names template 3, and there are 3, counted from 0"),
    ],
)
def test_a_ranking_for_something_else(classes, message):
    with pytest.raises(ValueError, match=message):
        TemplateRanking(classes).chosen(Vocabulary((('cat',), ('dog',))), 3)


def test_what_experts_do_not_go_with():
    mine = Vocabulary((('cat',), ('dog',)))
    texts = torch.nn.functional.normalize(torch.randn(2, 64), dim=-1)
    with pytest.raises(ValueError, match=r'method lposs does more with maps than compare'):
        ExpertPipeline(
            goldens.model(), LPOSS(), mine, texts, Settings(), goldens.dino(16), experts=texts.expand(2, 2, 64)
        )
    with pytest.raises(ValueError, match=r'set prob_thd=0'):
        ExpertPipeline(goldens.model(), NACLIP(), mine, texts, Settings(prob_thd=0.1), experts=texts.expand(2, 2, 64))
