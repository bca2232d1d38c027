"""The clusters' centres: learnable words in a sentence that CLIP's frozen text tower reads.

K clusters; L words (slots) of a prompt; D width of the text tower; C joint width.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from clip import CLIP, ConvNeXtCLIP, tokenize

SLOT = '{}'  # one token, which stands where the learnable words go
NO_WORDS = 10  # ids at the end of the vocabulary that no word is drawn from


def template_ids(length: int, context_length: int = 77) -> Tensor:
    """Token ids of 'A photo of a {} {} in the scene' with so many slots (context_length,)."""
    return tokenize(f'A photo of a {" ".join([SLOT] * length)} in the scene', context_length)[0]


def slots(ids: Tensor) -> Tensor:
    """Which tokens of a template are slots: bool, as `ids`."""
    return ids == tokenize(SLOT)[0, 1].to(ids.device)


def random_words(clusters: int, length: int, vocabulary: int, seed: int = 0) -> Tensor:
    """Ids of the words that prompts start from (K, L), drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary - NO_WORDS, (clusters, length), generator=generator)


def known_words(clusters: int, length: int, embedding: Tensor, seed: int = 0) -> Tensor:
    """Ids of words that prompts start from (K, L), of those whose row of `embedding` (V, D) is not zero.

    They are drawn in random order, and again in another one only when all have had their turn.
    """
    generator = torch.Generator().manual_seed(seed)
    known = embedding.abs().sum(dim=1).nonzero()[:, 0].cpu()
    turns = -(-clusters * length // len(known))
    drawn = torch.cat([known[torch.randperm(len(known), generator=generator)] for _ in range(turns)])
    return drawn[: clusters * length].view(clusters, length)


def words_of_names(names: Sequence[str], length: int) -> Tensor:
    """Ids of the words of names that prompts start from, one a cluster (K, L).

    Raises:
        ValueError: a name that is not as long as a prompt; says which.
    """
    ids = tokenize(list(names))
    words = ids.argmax(dim=1) - 1  # before EOT, without SOT
    for name, count in zip(names, words.tolist(), strict=True):
        if count != length:
            raise ValueError(f'the name {name!r} has {count} tokens, a prompt has {length} (model.prompt_length)')
    return ids[:, 1 : 1 + length]


def random_vectors(clusters: int, length: int, embedding: Tensor, seed: int = 0) -> Tensor:
    """Vectors that prompts start from where few words have an embedding (K, L, D).

    They are normal, with the spread of the rows of `embedding` (V, D) that are not zero.
    """
    generator = torch.Generator().manual_seed(seed)
    known = embedding[embedding.abs().sum(dim=1) > 0]
    return known.std().cpu() * torch.randn(clusters, length, embedding.shape[1], generator=generator)


Start = Callable[[int, int, Tensor, int], Tensor]
STARTS: Mapping[str, Start] = {
    'words': lambda clusters, length, embedding, seed: embedding[random_words(clusters, length, len(embedding), seed)],
    'known': lambda clusters, length, embedding, seed: embedding[known_words(clusters, length, embedding, seed)],
    'vectors': random_vectors,
}  # what prompts start from (K, L, D), of clusters, length, embedding and seed


def cluster_centres(net: CLIP | ConvNeXtCLIP, words: Tensor) -> Tensor:
    """The text embeddings (K, C) of the template with `words` (K, L, D) in its slots, not normalised.

    Gradients reach the words through the text tower.
    """
    ids = template_ids(words.shape[1], net.context_length).to(words.device)
    eot = ids.argmax()
    ids = ids[: int(eot) + 1]
    embedded = net.token_embedding(ids).expand(len(words), -1, -1)  # (K, n, D)
    first = int(slots(ids).nonzero()[0])
    embedded = torch.cat([embedded[:, :first], words, embedded[:, first + words.shape[1] :]], dim=1)
    return net.encode_embedded(embedded, eot.expand(len(words)))
