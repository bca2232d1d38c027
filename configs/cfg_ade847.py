# ADE20K val (2021_17_01), 2,000 pictures, 847 classes; 16-bit label maps, 65535 is ignored.
_base_ = './base_config.py'

model = dict(name_path='./configs/cls_cliptrase_ade847.txt', synonyms='joined')
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 336), keep_ratio=True),
    dict(type='LoadWideAnnotations'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    dataset=dict(
        type='WideLabelDataset',
        class_file='./configs/cls_cliptrase_ade847.txt',
        data_root='data/ADE20K_2021_17_01',
        data_prefix=dict(img_path='images_detectron2/validation', seg_map_path='annotations_detectron2/validation'),
        pipeline=test_pipeline,
    )
)
test_evaluator = dict(ignore_index=65535)
