"""One step, and four: features, masks' clusters, loss, gradients and what the optimiser makes of them."""

import math

import pytest
import torch

from naclip.training.features import cluster_maps, dense_features
from naclip.training.groups import Rates, parameter_groups
from naclip.training.prompts import cluster_centres
from tests.naclip.training.golden import assert_near, bits, golden, inputs, masks, said, training

STEP = [key.removeprefix('step/grad/') for key in golden() if key.startswith('step/grad/')]


@pytest.fixture(scope='module')
def stepped():
    """The model with the gradients of its first step, and its loss."""
    model = training()
    loss = model(inputs('in/images'), inputs('in/images_strong'), masks())
    loss.backward()
    return model, loss


def test_features_and_assignment():
    model = training()
    centres = cluster_centres(model.net, model.prompts).detach()
    student = dense_features(model.net.visual, inputs('in/images_strong')).detach()
    assert_near(student.movedim(1, -1), 'step/student_dense', 2e-5)
    teacher = dense_features(model.teacher_encoder.visual, inputs('in/images')).detach()
    assert_near(teacher.movedim(1, -1), 'step/teacher_dense', 2e-5)
    assert_near(cluster_maps(student, centres), 'step/cost', 2e-5)

    assigned = model.assign(inputs('in/images'), masks(), centres)
    assert_near(assigned.pooled, 'step/mask_features', 2e-5)
    assert_near(model.sharpness * assigned.cosines, 'step/logits', 2e-5)
    assert_near(assigned.shares, 'step/assignment', 2e-5)
    assert torch.equal(assigned.labels, golden()['step/labels'].long())
    assert torch.equal(assigned.cosines.argmax(dim=1), golden()['step/labels_without_sinkhorn'].long())
    unions = assigned.unions
    assert torch.equal(unions.bool(), bits('step/targets', unions.shape))
    assert unions.amax(dim=1).sum() == golden()['step/valid_pixels']


def test_head():
    model = training()
    centres = cluster_centres(model.net, model.prompts)
    out = model.logits(inputs('in/images_strong'), centres).detach()
    assert_near(out[:, :, ::3, ::3], 'step/head_out_every3', 2e-5)
    assert_near(out.mean(dim=(2, 3)), 'step/head_out_mean', 2e-5)


def test_loss(stepped):
    assert abs(stepped[1].item() - golden()['step/loss'].item()) <= 1e-6


def test_gradients(stepped):
    model, _ = stepped
    norms = said('step/grad_norms')
    ours = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.requires_grad}
    assert set(ours) == set(norms)  # what is trained, and nothing else
    for name, norm in norms.items():
        assert ours[name] == pytest.approx(norm, rel=1e-3, abs=1e-6)
    total = math.sqrt(sum(norm**2 for norm in ours.values()))
    assert total == pytest.approx(golden()['step/grad_norm_total'].item(), rel=1e-3)
    for name in STEP:
        assert_near(model.get_parameter(name).grad, f'step/grad/{name}', 1e-3)


def test_queries_and_keys_of_the_last_block_get_zeros(stepped):
    model, _ = stepped
    grad = model.net.visual.transformer.resblocks[-1].attn.in_proj_weight.grad
    assert not grad[: 2 * len(grad) // 3].any()
    assert grad[2 * len(grad) // 3 :].any()


def test_one_step_of_the_optimiser():
    model = training()
    optimiser = torch.optim.AdamW(parameter_groups(model, Rates()), betas=(0.9, 0.999), eps=1e-8)
    model(inputs('in/images'), inputs('in/images_strong'), masks()).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_(trained, 0.01)
    clipped = torch.stack([p.grad.norm() for p in trained]).norm()
    assert clipped.item() == pytest.approx(golden()['step/clipped_grad_norm'].item(), rel=1e-3)
    before = {name: model.get_parameter(name).detach().clone() for name in STEP}
    optimiser.step()
    for name in STEP:
        moved = (golden()[f'step/after/{name}'] - before[name]).abs().max()
        deviation = (model.get_parameter(name).detach() - golden()[f'step/after/{name}']).abs().max()
        assert deviation <= 0.1 * moved, name


def test_trajectory():
    """Four steps on one batch: the order, the teacher's momentum, clipping, schedule."""
    config = said('traj/config')
    model = training()
    rates = Rates(config['base_lr'], config['clip_multiplier'], config['prompt_multiplier'], config['weight_decay'])
    optimiser = torch.optim.AdamW(parameter_groups(model, rates))
    steps, end = config['max_iter'], config['base_lr_end'] / config['base_lr']
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda t: end + (1 - end) / 2 * (1 + math.cos(math.pi * t / steps))
    )
    weak, strong, own = inputs('in/images'), inputs('in/images_strong'), masks()
    seen, tower = [], model.teacher_encoder.visual  # the teacher's embedding when it looks at the pictures
    hook = tower.conv1.register_forward_pre_hook(lambda *_: seen.append(tower.positional_embedding.clone()))
    for t in range(steps):
        optimiser.zero_grad()
        loss = model(weak, strong, own)
        assert abs(loss.item() - golden()['traj/losses'][t].item()) <= 2e-4
        assert (seen[-1] - golden()[f'traj/teacher_positional_{t}']).abs().max() <= 2e-6
        centres = cluster_centres(model.net, model.prompts).detach()
        assert torch.equal(model.assign(weak, own, centres).labels, golden()['traj/labels'][t].long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(model.parameters()), config['clip_norm'])
        optimiser.step()
        schedule.step()
    hook.remove()
    assert_near(model.prompts, 'traj/prompt_tokens_end', 2e-3)


def test_a_batch_without_masks_has_a_loss_of_zero_and_gradients():
    model = training()
    nothing = [torch.zeros(0, 48, 48, dtype=torch.bool)] * 4
    loss = model(inputs('in/images'), inputs('in/images_strong'), nothing)
    assert loss == 0
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)


def test_the_teacher_is_not_trained():
    assert not [name for name, p in training().teacher_encoder.named_parameters() if p.requires_grad]
