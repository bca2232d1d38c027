# COCO val2017, 5,000 pictures, 81 classes with background; labels made by datasets/cvt_coco_object.py.
_base_ = './base_config.py'

model = dict(name_path='./configs/cls_coco_object.txt', prob_thd=0.1)
test_dataloader = dict(
    dataset=dict(
        type='COCOObjectDataset',
        data_root='data/coco_object',
        data_prefix=dict(img_path='images/val2017', seg_map_path='annotations/val2017'),
    )
)
