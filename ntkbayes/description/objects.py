"""The values that make objects what they are."""

from typing import Any

# Of a class, what does not say what it does.
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
    """Parameters of a distribution, transform or constraint: not what it has computed from them."""
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
    """What `pickle` would keep of an object; None if it keeps none."""
    try:
        reduced = thing.__reduce_ex__(4)
    except Exception:  # whatever an object raises that cannot be kept
        return None
    if isinstance(reduced, str):
        return {"name": reduced}
    make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    if getattr(make, "__name__", "") in ("__newobj__", "__newobj_ex__"):
        make, arguments = None, arguments[1:]
    told = {"made by": make, "arguments": arguments or None, "state": None}
    if isinstance(state, dict):
        told |= {str(name): v for name, v in state.items() if name not in BOOKKEEPING}
    else:
        told["state"] = state
    told |= {"items": items and list(items), "pairs": pairs and list(pairs)}
    return {name: value for name, value in told.items() if value is not None}
