"""The learnable sentence and what the text tower makes of it."""

import pytest
import torch

from clip import tokenize
from naclip.training.prompts import (
    STARTS,
    cluster_centres,
    known_words,
    random_vectors,
    random_words,
    slots,
    template_ids,
    words_of_names,
)
from tests.naclip.training.golden import assert_near, golden, training


def test_template():
    assert torch.equal(template_ids(4), golden()['prompt/template_ids'].long())
    assert slots(template_ids(4)).sum() == 4


def test_words():
    vocabulary = len(training().net.token_embedding.weight)
    assert torch.equal(random_words(16, 4, vocabulary), golden()['prompt/words'].long())
    assert torch.equal(random_words(64, 4, 49408), golden()['prompt/words_published'].long())


def test_words_leave_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    random_words(4, 2, 100)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ('tokens', 'embeds'), [('prompt/tokens', 'prompt/embeds'), ('prompt/alt_tokens', 'prompt/alt_embeds')]
)
def test_centres(tokens, embeds):
    assert_near(cluster_centres(training().net, golden()[tokens]).detach(), embeds, 2e-5)


def test_centres_of_words_are_those_of_the_sentence(model):
    """Slots filled with the embeddings of real words are the sentence with these words."""
    words = tokenize('red old wooden chair')[0, 1:5]
    centre = cluster_centres(model, model.token_embedding(words)[None])
    sentence = model.encode_text(tokenize('A photo of a red old wooden chair in the scene'))
    torch.testing.assert_close(centre, sentence)


@pytest.mark.parametrize(('clusters', 'length'), [(3, 2), (7, 1), (5, 4)])
def test_known_words_have_their_turn_before_any_comes_again(clusters, length):
    embedding = torch.zeros(20, 8)
    known = [2, 3, 5, 7, 11, 13, 17]
    embedding[known] = torch.randn(len(known), 8)
    words = known_words(clusters, length, embedding)
    assert words.shape == (clusters, length)
    times = torch.bincount(words.flatten(), minlength=20)[known]
    assert times.sum() == clusters * length  # no other word
    assert times.max() - times.min() <= 1
    assert torch.equal(words, known_words(clusters, length, embedding))
    assert not torch.equal(words, known_words(clusters, length, embedding, seed=1))


def test_words_of_names():
    ids = words_of_names(['red chair', 'old tree'], 2)
    assert torch.equal(ids, torch.stack([tokenize(name)[0, 1:3] for name in ('red chair', 'old tree')]))
    with pytest.raises(ValueError, match=r"the name 'tree' has 1 tokens, a prompt has 2"):
        words_of_names(['red chair', 'tree'], 2)


@pytest.mark.parametrize('start', STARTS)
def test_starts(start, model):
    embedding = model.token_embedding.weight.detach()
    words = STARTS[start](6, 2, embedding, 0)
    assert words.shape == (6, 2, embedding.shape[1])
    assert torch.equal(words, STARTS[start](6, 2, embedding, 0))


def test_vectors_have_the_spread_of_the_known_words():
    embedding = torch.zeros(100, 32)
    embedding[:50] = 0.3 * torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    vectors = random_vectors(200, 4, embedding)
    assert vectors.shape == (200, 4, 32)
    assert vectors.std().item() == pytest.approx(0.3, rel=0.05)
    assert torch.equal(vectors, random_vectors(200, 4, embedding))
