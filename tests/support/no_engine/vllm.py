"""Stands in the way of the real vLLM in processes of tests without the marker `engine`: see `conftest`."""

raise ImportError("a test without the marker `engine` loads vLLM")
