# COCO-Stuff 10k test, 1,000 pictures, 171 classes of things and stuff; label 0 is unlabelled.
_base_ = './base_config.py'

model = dict(name_path='./configs/cls_coco_stuff.txt')
test_dataloader = dict(
    dataset=dict(
        type='COCOStuffDataset',
        data_root='data/coco_stuff10k',
        data_prefix=dict(img_path='images/test2014', seg_map_path='annotations/test2014'),
        reduce_zero_label=True,
    )
)
