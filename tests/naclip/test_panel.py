"""A panel of pipelines says of every picture what each of them says alone, and computes once what they share."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clip.model import Attention, ResidualAttentionBlock
from naclip.floss import ExpertPipeline
from naclip.methods import find_method, with_constants
from naclip.methods.last_block import LastBlock
from naclip.methods.method import Method
from naclip.panel import Labelled, Panel, View
from naclip.pipeline import Pipeline, Settings, queries_of
from naclip.walk import pamr
from naclip.walk.reading import Reading
from naclip.walk.vocabulary import Vocabulary, parse_classes

SLIDE = dict(slide_crop=64, slide_stride=32)
WHOLE = dict(slide_crop=0)
FEW = Vocabulary(parse_classes('sky, cloud; cat; dog; tree, bush, shrub'))
SOME = Vocabulary(parse_classes('cat; dog'))
SIZES = [(80, 112), (70, 64), (80, 112), (50, 61)]
# Methods of every kind: plain, with a read of their own, of two streams, that settle, refine or vote.
NAMES = ('naclip', 'sclip', 'clip', 'clearclip', 'maskclip', 'gem', 'clip_surgery', 'pearl', 'cliptrase', 'pixelclip')
CONSTANTS = {'gem': {'depth': 2}, 'clip_surgery': {'depth': 2}}


def never(members: Sequence[int], error: Exception) -> None:
    raise error


@pytest.fixture(scope='module')
def build(model) -> Callable[..., Pipeline]:
    """Pipelines under the stand-in CLIP, with random text embeddings that depend on the names alone."""

    def embeddings(queries: Sequence) -> torch.Tensor:
        rows = []
        for query in queries:
            seed = sum(ord(letter) * (i + 1) for i, letter in enumerate(str(query)))
            rows.append(torch.randn(64, generator=torch.Generator().manual_seed(seed)))
        return F.normalize(torch.stack(rows), dim=-1)

    def build(method: str | Method, vocabulary: Vocabulary = FEW, experts: bool = False, **given: object) -> Pipeline:
        if isinstance(method, str):
            method = with_constants(find_method(method), CONSTANTS.get(method, {}))
        texts = embeddings(queries_of(vocabulary, method))
        arguments = (model, method, vocabulary, texts, Settings(**given))
        if experts:
            of_classes = torch.stack([texts.roll(k, dims=1) for k in range(len(vocabulary))])
            return ExpertPipeline(*arguments, experts=of_classes)
        return Pipeline(*arguments)

    return build


@pytest.fixture(scope='module')
def views() -> list[View]:
    generator = torch.Generator().manual_seed(1)
    pictures = []
    for i, (h, w) in enumerate(SIZES):
        coarse = torch.randn(1, 3, h // 10, w // 10, generator=generator)
        image = F.interpolate(coarse, (h, w), mode='bilinear') + 0.1 * torch.randn(1, 3, h, w, generator=generator)
        pictures.append(View(image, (h + 7 * i, w - 5 * i)))
    return pictures


def said(pipelines: Sequence[Pipeline], views: Sequence[View]) -> dict[tuple[int, int], torch.Tensor]:
    """What a panel says, by member and picture; nothing twice."""
    answers = list(
        Panel(pipelines)([dict.fromkeys(range(len(pipelines)), view) for view in views], range(len(pipelines)), never)
    )
    found = {(answer.member, answer.picture): answer.labels for answer in answers}
    assert len(found) == len(answers) == len(pipelines) * len(views)
    return found


def check_as_alone(pipelines: Sequence[Pipeline], views: Sequence[View]) -> None:
    for (m, i), labels in said(pipelines, views).items():
        alone, _ = pipelines[m](views[i].image, views[i].size)
        assert labels.shape == (1, 1, *views[i].size)
        assert torch.equal(labels, alone), (m, i)


SETTINGS = st.fixed_dictionaries(
    {
        'pamr_steps': st.sampled_from([0, 0, 1, 3]),
        'pamr_stride': st.sampled_from([(8, 16), (1,)]),
        'prob_thd': st.sampled_from([0.0, 0.05, 0.3]),
        'logit_scale': st.sampled_from([40.0, 100.0]),
    }
)
MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from([FEW, SOME]),
        SETTINGS,
        st.sampled_from([SLIDE, WHOLE, dict(WHOLE, straight=True), dict(WHOLE, input_size=(64, 96))]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40)
@given(MEMBERS)
def test_every_member_says_what_it_says_alone(build, views, members):
    pipelines = []
    for name, vocabulary, given_settings, windows in members:
        windows = WHOLE if find_method(name).votes else windows
        pipelines.append(build(name, vocabulary, **given_settings | windows))
    check_as_alone(pipelines, views[:1])


def test_pictures_of_several_sizes_in_one_batch(build, views):
    check_as_alone(
        [build('naclip', pamr_steps=2, **SLIDE), build('clip', SOME, **SLIDE), build('cliptrase', **WHOLE)], views
    )


def test_more_windows_than_go_together(build, views, monkeypatch):
    monkeypatch.setattr('naclip.walk.windows.PIXELS_AT_ONCE', 4 * 64 * 64)
    check_as_alone([build('naclip', **SLIDE), build('sclip', **SLIDE)], views)


def test_experts(build, views):
    check_as_alone([build('naclip', experts=True, **SLIDE), build('naclip', **SLIDE)], views[:2])


def test_one_tower_for_all(build, views, monkeypatch):
    """Every block runs once, whoever asks, and PAMR's affinities are computed once."""
    runs, affinities = [], []
    qkv, affinity = Attention.qkv, pamr.affinity
    monkeypatch.setattr(Attention, 'qkv', lambda self, x: runs.append(id(self)) or qkv(self, x))
    monkeypatch.setattr('naclip.pipeline.affinity', lambda *args: affinities.append(1) or affinity(*args))
    pipelines = [build(name, **SLIDE) for name in ('naclip', 'sclip', 'clip', 'clearclip', 'maskclip')]
    pipelines += [build('naclip', SOME, pamr_steps=1, **SLIDE), build('clip', SOME, pamr_steps=2, **SLIDE)]
    said(pipelines, views[:1])
    blocks = len(pipelines[0].net.visual.transformer.resblocks)
    assert len(set(runs)) == blocks
    assert len(runs) <= blocks + 1  # CLIP's own last block runs as a whole
    assert affinities == [1]


def test_what_vocabularies_and_thresholds_share(build, views, monkeypatch):
    features, maps = [], []
    last_block, of_names = LastBlock.tokens, Pipeline.maps
    monkeypatch.setattr(Pipeline, 'maps', lambda self, reading: maps.append(self) or of_names(self, reading))
    monkeypatch.setattr('naclip.methods.last_block.attend', _counting(features, 'naclip.methods.last_block'))
    pipelines = [build('naclip', words, prob_thd=thd, **SLIDE) for words in (FEW, SOME) for thd in (0.0, 0.1, 0.2)]
    said(pipelines, views[:1])
    assert len(maps) == 2  # one for each vocabulary
    assert len(features) == 1
    assert last_block is LastBlock.tokens


def _counting(calls: list, module: str) -> Callable:
    import importlib

    function = importlib.import_module(module).attend
    return lambda *args: calls.append(1) or function(*args)


class Failing(LastBlock):
    """Fails on the pictures of one width."""

    width = 64

    def maps(self, reading: Reading, texts: torch.Tensor) -> torch.Tensor:
        if reading.windows.shape[-1] == self.width:
            raise ValueError('too narrow')
        return super().maps(reading, texts)


def test_a_member_that_fails_leaves_the_others_alone(build, views):
    pipelines = [build('naclip', **WHOLE), build(Failing(), **WHOLE), build('clip', **WHOLE)]
    failures = []
    panel = Panel(pipelines)
    for i, view in enumerate(views):
        members = [m for m in range(3) if m not in {m for ms, _ in failures for m in ms}]
        answers: list[Labelled] = list(
            panel([dict.fromkeys(range(3), view)], members, lambda ms, error: failures.append((list(ms), str(error))))
        )
        assert [a.member for a in answers] == ([0, 1, 2] if i == 0 else [0, 2])
        for answer in answers:
            assert torch.equal(answer.labels, pipelines[answer.member](view.image, view.size)[0])
    assert failures == [([1], 'too narrow')]


def test_a_failure_may_end_it_all(build, views):
    with pytest.raises(ValueError, match='too narrow'):
        list(Panel([build(Failing(), **WHOLE)])([{0: views[1]}], [0], never))


def test_members_that_get_another_picture_share_nothing(build, views):
    one, other = views[0], View(views[0].image + 1, views[0].size)
    pipelines = [build('naclip', pamr_steps=1, **SLIDE)] * 2
    answers = {a.member: a.labels for a in Panel(pipelines)([{0: one, 1: other}], [0, 1], never)}
    for m, view in enumerate((one, other)):
        assert torch.equal(answers[m], pipelines[m](view.image, view.size)[0])


def test_a_block_that_somebody_looked_into_gives_the_same_bits(model, views):
    """Else a run would depend on the runs beside it."""
    with torch.no_grad():
        looked, plain = Reading(model.visual, views[0].image), Reading(model.visual, views[0].image)
        for layer in range(1, looked.depth + 1):
            looked.qkv(layer)
        assert torch.equal(looked.tokens(looked.depth), plain.tokens(plain.depth))
    assert ResidualAttentionBlock.forward  # the plain one ran whole


def test_a_member_that_fails_in_a_batch_of_any_sizes(build, views):
    """What it leaves has no windows of the later pictures, of which there are more."""
    pipelines = [build('naclip', **SLIDE), build(Failing(), **SLIDE)]
    failures = []
    batch = [dict.fromkeys(range(2), view) for view in (views[3], views[0])]
    answers = list(
        Panel(pipelines)(batch, range(2), lambda members, error: failures.append((list(members), str(error))))
    )
    assert failures == [([1], 'too narrow')]
    assert [(a.member, a.picture) for a in answers] == [(0, 0), (0, 1)]
