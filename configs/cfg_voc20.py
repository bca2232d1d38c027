# PASCAL VOC 2012 val, 1,449 pictures, 20 classes: background is ignored.
_base_ = './base_config.py'

model = dict(name_path='./configs/cls_voc20.txt')
test_dataloader = dict(
    dataset=dict(
        type='PascalVOC20Dataset',
        data_root='data/VOCdevkit/VOC2012',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
    )
)
