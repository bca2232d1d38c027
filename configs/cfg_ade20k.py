# ADE20K val, 2,000 pictures, 150 classes.
_base_ = './base_config.py'

model = dict(name_path='./configs/cls_ade20k.txt')
test_dataloader = dict(
    dataset=dict(
        type='ADE20KDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    )
)
