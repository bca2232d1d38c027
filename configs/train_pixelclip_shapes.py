# The embedded world: generated pictures with generated masks, and the CLIP that comes with the toolkit. It shows that
# everything works, anywhere; see docs/training.md on what it does to the mIoU.
_base_ = './base_train_pixelclip.py'
model = dict(clip_path='shapes', clusters=20, start='vectors', resolution=64, crop=64, mask_resolution=64)
data = dict(data_root=None, folders=None, short=112, longest=160, crop=64, mask_resolution=64)
batch = 4
workers = 1
max_iters = 100
rates = dict(base=3e-3, tower=0.02, prompts=5)
log_interval = 5
checkpoint_interval = 25
val_config = 'configs/cfg_shapes.py'
val_interval = 50
val_options = ('--cfg-options', 'model.slide_crop=0', 'test_dataloader.num_workers=0')
