"""The values that determine objects."""

from typing import Any

# Attributes of a class that do not affect its behaviour.
BOOKKEEPING = {
    "__abstractclassvars__",
    "__abstractmethods__",
    "__abstractvars__",
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__match_args__",
    "__module__",
    "__name__",
    "__orig_bases__",
    "__parameters__",
    "__qualname__",
    "__slotnames__",
    "__static_attributes__",
    "__type_params__",
    "__weakref__",
    "_abc_impl",
}


def numpyro_fields(thing: Any) -> dict[str, Any]:
    """Parameters of a distribution, transform or constraint, without what it computed from them."""
    if hasattr(thing, "gather_pytree_data_fields"):
        names = {*thing.gather_pytree_data_fields(), *thing.gather_pytree_aux_fields()}
        fields = {name: vars(thing)[name] for name in sorted(names & vars(thing).keys())}
    else:
        values, (names, rest) = thing.tree_flatten()
        fields = {**dict(zip(names, values, strict=True)), **rest}
    return {
        name: value
        for name, value in fields.items()
        if not (value is None or (isinstance(value, tuple) and not value))
    }


def pickled_state(thing: Any) -> dict[str, Any] | None:
    """What `pickle` would store of an object; None if it cannot be pickled."""
    try:
        reduced = thing.__reduce_ex__(4)
    except Exception:  # anything, for an object that cannot be pickled
        return None
    if isinstance(reduced, str):
        return {"name": reduced}
    make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    if getattr(make, "__name__", "") in ("__newobj__", "__newobj_ex__"):
        make, arguments = None, arguments[1:]
    parts = {"made by": make, "arguments": arguments or None, "state": None}
    if isinstance(state, dict):
        parts |= {str(name): v for name, v in state.items() if name not in BOOKKEEPING}
    else:
        parts["state"] = state
    parts |= {"items": items and list(items), "pairs": pairs and list(pairs)}
    return {name: value for name, value in parts.items() if value is not None}
