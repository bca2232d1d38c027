# PASCAL Context val, 5,104 pictures, 60 classes with background.
_base_ = './base_config.py'

model = dict(name_path='./configs/cls_context60.txt', prob_thd=0.1)
test_dataloader = dict(
    dataset=dict(
        type='PascalContext60Dataset',
        data_root='data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/val.txt',
    )
)
