"""python -m tests.python.torch_calls: prints docs/reference/torch_rules.md."""

from tests.python.torch_calls.entry import reference_page

print(reference_page(), end="")
