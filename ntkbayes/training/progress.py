"""What is shown of training that takes long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

DELAY = 2.0  # seconds before a bar is shown


@contextmanager
def steps_of(title: str, *, shown: bool) -> Iterator[Callable[[float], None]]:
    """A function to be called after each step with the error of the logits; it counts and shows them."""
    with tqdm(desc=title, unit=" steps", delay=DELAY, disable=not shown) as bar:

        def watch(error: float) -> None:
            bar.set_postfix_str(f"logits within {error:.1g}", refresh=False)
            bar.update()

        yield watch
