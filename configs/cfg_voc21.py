# PASCAL VOC 2012 val, 1,449 pictures, 21 classes with background.
_base_ = './base_config.py'

model = dict(name_path='./configs/cls_voc21.txt', prob_thd=0.1)
test_dataloader = dict(
    dataset=dict(
        type='PascalVOCDataset',
        data_root='data/VOCdevkit/VOC2012',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
    )
)
