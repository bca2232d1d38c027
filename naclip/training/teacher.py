"""The teacher: a moving average of the student's image tower."""

import torch
from torch import nn

MOMENTUM = 0.999


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float = MOMENTUM) -> None:
    """Move the teacher's parameters by 1 - momentum towards the student's, in place.

    Both are float32: in half precision the step is lost in rounding, and the teacher stays where it was.

    Raises:
        ValueError: parameters of another dtype.
    """
    mine, theirs = list(teacher.parameters()), list(student.parameters())
    other = {parameter.dtype for parameter in mine + theirs} - {torch.float32}
    if other:
        raise ValueError(
            f'teacher and student are {", ".join(map(str, other))}, expected float32: use AMP, not .half()'
        )
    torch._foreach_lerp_(mine, theirs, 1 - momentum)
