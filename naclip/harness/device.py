"""The device that everything runs on, in every process."""

import torch
from mmengine.dist import init_dist, is_distributed


def choose_device(device: str, launcher: str) -> str:
    """Make `device` (auto, cpu, cuda, cuda:INDEX) the current one, and let processes find each other.

    Returns the kind of the device: 'cuda' or 'cpu'.

    Raises:
        ValueError: the device is not there, or does not go with the launcher.
    """
    kind, _, index = device.partition(':')
    if kind == 'auto':
        kind = 'cuda' if torch.cuda.is_available() else 'cpu'
    if kind == 'cuda':
        if not torch.cuda.is_available():
            raise ValueError('no CUDA device is available; use --device cpu')
        if index and launcher != 'none':
            raise ValueError(
                f'--device {device} and --launcher {launcher} exclude each other: each process takes its own GPU'
            )
        if index and int(index) >= torch.cuda.device_count():
            raise ValueError(f'--device {device}: there are {torch.cuda.device_count()} CUDA devices, counted from 0')
        if index:
            torch.cuda.set_device(int(index))
        if launcher != 'none' and not is_distributed():
            init_dist(launcher)
    elif launcher == 'pytorch':
        # MMEngine's launcher binds every process to a GPU; without one, the group is made here.
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
    elif launcher != 'none':
        raise ValueError(f'--launcher {launcher} needs CUDA devices; on the CPU use --launcher pytorch (dist_test.sh)')
    return kind
