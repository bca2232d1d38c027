"""Run the tests: `python -m tests OPTIONS`, as `python -m pytest OPTIONS`, and also where input or output is closed."""

import os
import sys

# Before anything opens a file, which would get a closed one's number, and what is printed.
for number in range(3):
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
sys.stdout = sys.stdout or open(1, 'w', closefd=False)  # noqa: SIM115
sys.stderr = sys.stderr or open(2, 'w', closefd=False)  # noqa: SIM115

import pytest  # noqa: E402

if __name__ == '__main__':
    sys.exit(pytest.main())
