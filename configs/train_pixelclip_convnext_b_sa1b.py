# PixelCLIP, OpenCLIP's ConvNeXt-B, masks of SA-1B. All of the image tower is trained.
_base_ = './base_train_pixelclip.py'
model = dict(
    clip_path='data/weights/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K.safetensors',  # a file of yours
    sharpness=1,
    resolution=640,
)
