"""tools/dino_masks.py: masks that training can read, of a stand-in DINO."""

import json
import shutil

import numpy as np
import torch

from clip.guides import Guide, GuideSizes
from naclip.data.run_lengths import decode
from naclip.training.pictures import Layout, read_index
from tests.naclip.training.test_pictures import write_pair
from tools import dino_masks


def test_masks_cover_each_picture_once(tmp_path, capsys):
    torch.manual_seed(0)
    tower = Guide(GuideSizes(128, 1, 16, 4))
    torch.nn.init.normal_(tower.pos_embed)
    torch.save(tower.state_dict(), tmp_path / 'dino.pth')
    for name in ('sa_000020/sa_1', 'sa_000020/sa_2'):
        write_pair(tmp_path, name)
    shutil.rmtree(tmp_path / 'annotations')
    command = [str(tmp_path / 'images'), str(tmp_path / 'annotations'), '--dino', str(tmp_path / 'dino.pth')]
    assert dino_masks.main([*command, '--short', '64', '--device', 'cpu']) == 0
    assert len(read_index(Layout(tmp_path))) == 2
    path = tmp_path / 'annotations/sa_000020/sa_2.json'
    masks = [decode(entry['segmentation'], 40, 50) for entry in json.loads(path.read_text())['annotations']]
    assert len(masks) > 2
    assert (np.sum(masks, axis=0) == 1).all()
    written = path.stat().st_mtime_ns
    assert dino_masks.main([*command, '--short', '64', '--device', 'cpu']) == 0
    assert path.stat().st_mtime_ns == written  # made once
    assert dino_masks.main([str(tmp_path / 'nothing'), str(tmp_path)]) == 1
    assert 'dino_masks.py: there is no folder' in capsys.readouterr().err
