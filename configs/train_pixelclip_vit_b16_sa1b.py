# PixelCLIP, ViT-B/16, masks of SA-1B.
_base_ = './base_train_pixelclip.py'
