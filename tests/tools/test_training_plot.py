"""tools/training_plot.py: a run's log as a picture."""

import json

from PIL import Image

from tools import training_plot


def test_plot(tmp_path, capsys):
    for attempt, steps in (('20260101_000000', (1, 2, 3)), ('20260101_000100', (3, 4))):
        folder = tmp_path / attempt / 'vis_data'
        folder.mkdir(parents=True)
        lines = [json.dumps({'step': step, 'loss': 1 / step + (attempt > '20260101_0000001')}) for step in steps]
        (folder / 'scalars.json').write_text('\n'.join(lines))
    assert training_plot.read_losses(tmp_path) == {1: 1.0, 2: 0.5, 3: 1 / 3 + 1, 4: 1.25}
    (tmp_path / 'validation.json').write_text(json.dumps([{'step': 4, 'mIoU': 60.0}]))
    out = tmp_path / 'plot.png'
    assert training_plot.main([str(tmp_path), '--out', str(out), '--untrained', '51.4']) == 0
    with Image.open(out) as image:
        assert image.size == (840, 360)
    assert training_plot.main([str(tmp_path / 'none'), '--out', str(out)]) == 1
    assert 'has no log of a training' in capsys.readouterr().err
