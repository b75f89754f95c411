"""Lets tools that only know ``setup.py`` install the package; everything is in ``pyproject.toml``."""

from setuptools import setup

setup()
