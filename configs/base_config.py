# What all benchmarks share. The values here and in the cfg_*.py files are protocol `naclip`;
# the others are differences from it, listed in naclip/protocols.py.
custom_imports = dict(
    imports=['naclip.harness.segmentor', 'naclip.harness.datasets', 'naclip.harness.metric'], allow_failed_imports=False
)
default_scope = 'mmseg'

model = dict(
    type='NACLIP',
    clip_path='ViT-B/16',  # a backbone: docs/backbones.md
    method=dict(type='naclip'),  # and constants of the method; see naclip/methods/
    pamr_steps=10,
    pamr_stride=(8, 16),
    prob_thd=0.0,
    logit_scale=40,
    slide_stride=112,
    slide_crop=224,
)

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 336), keep_ratio=True),
    # The ground truth is loaded after the resize, so it is never resized.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline),
)
test_cfg = dict(type='TestLoop')
test_evaluator = dict(type='PixelCountIoUMetric', iou_metrics=['mIoU'])

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
log_level = 'INFO'
# For MMSegmentation's own clients; eval.py has its own.
default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
