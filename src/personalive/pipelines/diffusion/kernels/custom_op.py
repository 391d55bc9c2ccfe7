"""Registration of kernels as custom operations, which a compiler treats as opaque."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch

Params = ParamSpec("Params")
Result = TypeVar("Result")


class CustomOp(Generic[Params, Result]):
    """A function of tensors that launches kernels: it is called directly, or is one operation where it is compiled.

    Calling an operation through PyTorch's dispatcher takes longer than most of these take on a GPU, and the first
    such call imports the compiler.
    """

    def __init__(self, function: Callable[Params, Result]) -> None:
        self.__doc__ = function.__doc__
        self._function = function
        self._op = torch.library.custom_op(f"personalive::{function.__name__}", function, mutates_args=())

    def __call__(self, *args: Params.args, **kwargs: Params.kwargs) -> Result:
        """Return the function's result."""
        if torch.compiler.is_compiling():
            result: Result = self._op(*args, **kwargs)
            return result
        return self._function(*args, **kwargs)

    def register_fake(self, fake: Callable[..., Result]) -> Any:
        """Take a function that returns an empty result of the right shape, type and layout, for a compiler."""
        return self._op.register_fake(fake)
