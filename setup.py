"""The packages of the wheel; all else is in pyproject.toml.

At the top there are `naclip` and `clip` only. What the toolkit reads at run time travels inside `naclip`, where
naclip/files.py finds it.
"""

from setuptools import find_packages, setup

INSIDE = {'naclip.configs': 'configs', 'naclip.prompts': 'prompts'}

setup(packages=[*find_packages(include=['naclip', 'naclip.*', 'clip', 'clip.*']), *INSIDE], package_dir=INSIDE)
