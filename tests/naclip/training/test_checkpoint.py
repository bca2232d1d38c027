"""Weights in the published layout, and the checkpoint to go on from."""

import torch

import clip
from naclip.training.checkpoint import newest_whole, published_state, write_published
from tests.naclip.training.golden import said, training


def test_names_and_shapes_are_the_published_ones():
    ours = {name: list(tensor.shape) for name, tensor in published_state(training()).items()}
    assert ours == said('checkpoint/keys')


def test_the_harness_reads_the_student(tmp_path):
    model = training()
    with torch.no_grad():
        for parameter in model.net.visual.parameters():
            parameter += 1
    write_published(model, tmp_path / 'model.pth', 7)
    net, _ = clip.load(tmp_path / 'model.pth', 'cpu')
    assert torch.equal(net.visual.proj, model.net.visual.proj)
    assert not torch.equal(net.visual.proj, model.teacher_encoder.visual.proj)
    assert torch.load(tmp_path / 'model.pth', weights_only=True)['iteration'] == 7


def test_newest_whole(tmp_path):
    assert newest_whole(tmp_path) == (None, [])
    for step in (5, 40, 300):
        torch.save({'state_dict': {'a': torch.zeros(1000)}}, tmp_path / f'iter_{step}.pth')
    (tmp_path / 'iter_best.pth').touch()
    assert newest_whole(tmp_path) == (tmp_path / 'iter_300.pth', [])
    for step in (300, 40):
        path = tmp_path / f'iter_{step}.pth'
        path.write_bytes(path.read_bytes()[:-200])
    assert newest_whole(tmp_path) == (tmp_path / 'iter_5.pth', [tmp_path / 'iter_300.pth', tmp_path / 'iter_40.pth'])
