# What PixelCLIP's trainings share: the published settings of ViT-B/16 with masks (naclip/training/run.py has the keys).
model = dict(
    clip_path='ViT-B/16',  # a name of clip.available_models(), or a checkpoint file
    clusters=64,
    prompt_length=4,
    sharpness=100,  # of the clusters' softmax; published as EPS
    resolution=320,  # side of the pictures that the towers see
    crop=640,
    mask_resolution=256,
    momentum=0.999,  # of the teacher
    rounds=3,  # of the balanced assignment
    start='words',  # of prompts: random words, 'known' words, 'vectors', or a class-name file
    dino=None,  # 'dino_vits16' or a file: masks are made from its tokens
)
data = dict(
    data_root='data/sa1b',
    pictures='images',
    annotations='annotations',
    folders='datasets/sa1b.txt',  # the 100 published folders; None takes all
    index=None,  # where the list of pairs is kept; None: in data_root
    short=1024,  # pictures are resized so, unless the long side were longer than this
    longest=1333,
    crop=640,
    mask_resolution=256,
    jitter=True,  # False leaves the colours of both pictures as they are
)
batch = 48  # pictures of all processes together: 4 x 12 as published
workers = 8  # of each process
max_iters = 10000
rates = dict(base=2e-4, tower=0.01, prompts=10, decay=1e-4)  # of the head; times that; times that; weight decay
max_norm = 0.01  # of all gradients together

seed = 0
log_interval = 20
checkpoint_interval = 500
val_config = 'configs/cfg_ade20k.py'  # None trains without evaluating
val_interval = 1000
val_options = ()  # further options of eval.py
vis_backends = [dict(type='LocalVisBackend')]  # dict(type='TensorboardVisBackend') writes for TensorBoard
