"""Distillation methods: the interface, and the registry a user's own method joins with a decorator."""

from rkd.methods.base import Batch, Context, Entry, Method, get_method, method_names, register_method

__all__ = ["Batch", "Context", "Entry", "Method", "get_method", "method_names", "register_method"]
