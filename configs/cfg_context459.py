# PASCAL Context val, 5,104 pictures, 459 classes; 16-bit label maps, 65535 is ignored.
_base_ = './base_config.py'

model = dict(name_path='./configs/cls_cliptrase_context459.txt', synonyms='joined')
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 336), keep_ratio=True),
    dict(type='LoadWideAnnotations'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    dataset=dict(
        type='WideLabelDataset',
        class_file='./configs/cls_cliptrase_context459.txt',
        data_root='data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='annotations_detectron2/pc459_val'),
        ann_file='ImageSets/SegmentationContext/val.txt',
        pipeline=test_pipeline,
    )
)
test_evaluator = dict(ignore_index=65535)
