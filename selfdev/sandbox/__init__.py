"""Runs programs that nobody has read: they compute on the tensors they were given and nothing else."""

from selfdev.sandbox.layers import protections
from selfdev.sandbox.parent import Limits, Sandbox
from selfdev.sandbox.process import ServerProcess
from selfdev.sandbox.result import Run

__all__ = ["Limits", "Run", "Sandbox", "ServerProcess", "protections"]
