# The embedded world: generated pictures with generated masks, and the CLIP that comes with the toolkit.
# What differs from the published settings, and why, is in docs/training.md.
_base_ = './base_train_pixelclip.py'
model = dict(
    clip_path='shapes',
    clusters=20,
    prompt_length=1,
    start='configs/cls_shapes.txt',  # prompts start from words; no mask ever has one
    sharpness=25,
    momentum=0.99,  # of a run of 300 steps
    resolution=112,
    crop=112,
    mask_resolution=56,
)
# Here colours tell classes apart: under the published jitter of colours the teacher sees other things than there are.
data = dict(data_root=None, folders=None, short=112, longest=160, crop=112, mask_resolution=56, jitter=False)
batch = 8
workers = 1
max_iters = 300
rates = dict(base=1e-3, tower=0.2, prompts=1)
log_interval = 5
checkpoint_interval = 50
val_config = 'configs/cfg_shapes.py'
val_interval = 50
val_options = ('--cfg-options', 'model.slide_crop=0', 'test_dataloader.num_workers=0')
