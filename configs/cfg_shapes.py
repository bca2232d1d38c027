# The embedded benchmark: 200 generated pictures, 20 classes, and a CLIP trained on such pictures; no downloads.
_base_ = './base_config.py'

model = dict(
    name_path='./configs/cls_shapes.txt',
    clip_path='shapes',
    slide_crop=64,
    slide_stride=32,
    pamr_stride=(2, 4, 8),  # pictures and objects are a few times smaller than a benchmark's
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    dataset=dict(
        type='ShapesDataset',
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
        pipeline=test_pipeline,
    )
)
