# PixelCLIP, ViT-B/16, masks from DINO's tokens on the pictures of SA-1B, whose own masks are not read.
_base_ = './base_train_pixelclip.py'
model = dict(dino='dino_vits16')
data = dict(annotations=None)
