# PASCAL Context val, 5,104 pictures, 59 classes: background is ignored.
_base_ = './base_config.py'

model = dict(name_path='./configs/cls_context59.txt')
test_dataloader = dict(
    dataset=dict(
        type='PascalContext59Dataset',
        data_root='data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/val.txt',
    )
)
