# PixelCLIP, OpenCLIP's ConvNeXt-B, masks from DINO's tokens on the pictures of SA-1B.
_base_ = './train_pixelclip_convnext_b_sa1b.py'
model = dict(dino='dino_vits16')
data = dict(annotations=None)
