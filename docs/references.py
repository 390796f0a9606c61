"""Sphinx: what the names in docstrings and signatures lead to.

Those of other libraries lead to their sites, by inventories made from other_libraries.toml; those of
this one to its reference. A name that leads nowhere is a warning, which fails the build.
"""

import dataclasses
import pkgutil
import re
import tomllib
import zlib
from functools import cache
from pathlib import Path

from sphinx.util import logging
from sphinx.util.nodes import make_refnode

_LIST = Path(__file__).parent / "other_libraries.toml"
_NAME = re.compile(r"\w+(\.\w+)*")


def inventories(folder):
    """Write one inventory per library, in the format of Sphinx; returns its `intersphinx_mapping`."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for library, told in tomllib.loads(_LIST.read_text(encoding="utf-8")).items():
        places = {n: page.format(name=n) for page, names in told["pages"].items() for n in names}
        places |= {other: places[name] for other, name in told.get("also", {}).items()}
        # Of whatever kind a name is, a role finds it among classes.
        lines = [f"{name} py:class 1 {place} -\n" for name, place in sorted(places.items())]
        head = "# Sphinx inventory version 2\n# Project: {}\n# Version: \n# compressed by zlib\n"
        path = folder / f"{library}.inv"
        path.write_bytes(head.format(library).encode() + zlib.compress("".join(lines).encode()))
        mapping[library] = (told["site"], str(path))
    return mapping


@cache
def _listed():
    """The names of other libraries that have a page."""
    told = tomllib.loads(_LIST.read_text(encoding="utf-8")).values()
    pages = {name for each in told for names in each["pages"].values() for name in names}
    return pages | {name for each in told for name in each.get("also", {})}


def _is_of_another_library(name):
    return name.partition(".")[0] in {each.partition(".")[0] for each in _listed() if "." in each}


def _own(app, env, node, contnode):
    """Docstrings call an object by the end of its name, wherever they are: `Law.sample`, `networks.mlp`.
    An attribute leads to its class."""
    name = node.get("reftarget", "")
    is_name = _NAME.fullmatch(name) and ("." in name or name[0].isupper())
    if node.get("refdomain") != "py" or not is_name or name in _listed():
        return None
    found = _documented(env, name)
    owner, _, attribute = name.rpartition(".")
    if not found and owner:
        found = {full: e for full, e in _documented(env, owner).items() if _has(full, attribute)}
    if len({(entry.docname, entry.node_id) for entry in found.values()}) == 1:
        entry = next(iter(found.values()))
        from_page, builder = node["refdoc"], app.builder
        return make_refnode(builder, from_page, entry.docname, entry.node_id, contnode, name)
    if owner and not found and not _exists(name):
        if _is_of_another_library(name):
            _warn(node, f"{name} is not in docs/{_LIST.name}; add its page")
        elif owner.rpartition(".")[2][0].isupper() and _documented(env, owner):
            _warn(node, f"there is no {name}")
    return None


def _warn(node, message):
    logging.getLogger(__name__).warning(message, location=node)


def _documented(env, name):
    """The entries of the reference whose names end so."""
    objects = env.domains.python_domain.objects
    return {full: e for full, e in objects.items() if f".{full}".endswith(f".{name}")}


def _has(full, attribute):
    owner = pkgutil.resolve_name(full)
    fields = {f.name for f in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else ()
    return attribute in fields or hasattr(owner, attribute)


def _exists(name):
    try:
        pkgutil.resolve_name(f"ntkbayes.{name}")
    except (ImportError, AttributeError):
        return False
    return True


def setup(app):
    app.connect(
        "missing-reference", _own, priority=600
    )  # after intersphinx, whose answer comes first
    return {"parallel_read_safe": True, "parallel_write_safe": True}
