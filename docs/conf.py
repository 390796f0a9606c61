"""Sphinx: the site in docs/_build/html, with its notebooks executed. `make docs` builds it."""

import hashlib
import inspect
import os
import re
import shutil
import sys
from pathlib import Path

# The same figures everywhere, and no warning from JAX where a GPU cannot be used.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from docutils import nodes

import ntkbayes
from ntkbayes.app.cli import reference as commands

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))
import references

# Sphinx reads what lies under docs/ alone, and a link is followed to where it leads.
shutil.rmtree(_HERE / "notebooks", ignore_errors=True)
(_HERE / "notebooks").mkdir()
for _notebook in sorted((_HERE.parent / "notebooks").glob("*.py")):
    shutil.copy(_notebook, _HERE / "notebooks")


def _cache_of(folder):
    """Where outputs of this very library are kept; those of another are removed."""
    digest = hashlib.sha256()
    for path in sorted((_HERE.parent / "ntkbayes").rglob("*.py")):
        digest.update(path.read_bytes())
    kept = folder / digest.hexdigest()[:16]
    for other in folder.glob("*"):
        if other != kept:
            shutil.rmtree(other)
    return kept


(_HERE / "_build").mkdir(exist_ok=True)
(_HERE / "_build" / "commands.md").write_text(commands.page(), encoding="utf-8")

project = "ntkbayes"
author = "The ntkbayes developers"
copyright = author
release = version = ntkbayes.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "myst_nb",
    "references",
]
exclude_patterns = ["_build", "conf.py", "references.py"]
suppress_warnings = ["config.cache"]  # nb_custom_formats holds a dictionary, which is not pickled

intersphinx_mapping = references.inventories(_HERE / "_build" / "inventories")
linkcheck_timeout = 30
# These publishers answer browsers alone.
linkcheck_ignore = [r"https://doi\.org/10\.(1111|1198)/"]
linkcheck_allowed_redirects = {r"https://doi\.org/.*": r".*"}

smartquotes_action = "D"  # no quotes: θ' is a θ and a prime, and 'init' is to be copied

html_theme = "furo"
html_title = f"ntkbayes {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = False
html_copy_source = False

myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_dmath_double_inline = True
myst_heading_anchors = 3

# Pages and py:percent notebooks are run once, and again when they or the library have changed.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(_cache_of(_HERE / "_build" / "executed"))
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_merge_streams = True
nb_output_stderr = "remove-warn"

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
default_role = "py:obj"
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False  # the signature of the class has them

_CITATION = re.compile(r"THEORY (\d)")
_SPECIAL = re.compile(r"(`[^`]*`|\*\w[^*]*\w\*)(\w?)|([|*](?!\s))")
_NAMES = re.compile(r"^(\s+)(\w+(?:, \w+)*)(?=: )")
_LETTER = re.compile(r"(^\s*|: )([^\W\d])\.(?=\s|$)")
_CODE = re.compile(r"\s*(import |from |with |def |class |>>> |\w[\w.]*(, \w+)* = |[\w.]+\()")
_TABLE_ROW = re.compile(r"\s*\| (.* \| .*) \|")
_KEY = " | ".join(
    f"~jaxtyping.{kind}" for kind in ("Key[Array, '']", "UInt32[Array, '2']", "UInt32[Array, '4']")
)
_SHORT = {
    _KEY: "PRNGKeyArray",
    "str | type[~typing.Any] | ~numpy.dtype | ~jax._src.typing.SupportsDType": "DTypeLike",
    "<factory>": "...",
    "MappingProxyType({})": "{}",
}
_NUMBER = re.compile(r": (?:~typing\.)?Any = ([\d.]+(?:e-?\d+)?|inf)(?=[,)])")
_OBJECT = re.compile(r"<(?:function ([\w.]+)( at 0x\w+)?|class '([\w.]+)'|\w+\.\w+: ('\w+'))>")


def _marked(match):
    name, letter, sign = match.groups()
    if sign:
        return f"\\{sign}"
    return f"{name}\\ {letter}" if letter else name


def _unescaped(match):
    """Names before a colon as napoleon passes them on: it would take the first of several for a type,
    and a name that ends in _ is a link."""
    return re.sub(r"_(?=,|$)", r"\\_", match[0].replace(", ", ","))


def _spaced(app, doctree):
    """Several names, which napoleon was given as one: Sphinx sets each, and each comma, in bold."""
    for node in list(doctree.findall(nodes.strong)):
        if node.astext() == ",":
            node.replace_self(nodes.Text(", "))


def _linked(text):
    return _CITATION.sub(r":ref:`THEORY \1 <theory-\1>`", text)


def _table_row(indent, row, *, is_first):
    """Of a list-table, from a line of Markdown."""
    cells = [_linked(_SPECIAL.sub(_marked, cell.strip())) for cell in row.split(" | ")]
    lines = [".. list-table::", "   :header-rows: 1", ""] if is_first else []
    if set("".join(cells)) != {"-"}:
        lines += [f"   {'  ' if k else '* '}- {cell}" for k, cell in enumerate(cells)]
    return [" " * indent + line for line in lines]


def _plain_text(app, what, name, obj, options, lines):
    """Docstrings are plain text with `names`, not reStructuredText: make it that.

    |x| and *x are what they look like, an indented paragraph is a formula, lines of | cells | are a
    table, THEORY 2 is a link.
    """
    found, formula, before = [], None, 0
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if row := _TABLE_ROW.fullmatch(line):
            found += _table_row(indent, row[1], is_first=not lines[number - 1].strip())
            continue
        starts = line.strip() and (number == 0 or not lines[number - 1].strip())
        if formula is not None and line.strip() and indent < formula:
            formula = None
        if formula is None and starts and indent > before:
            formula = indent
            language = "python" if _CODE.match(line) and line.isascii() else "text"
            found += [" " * before + f".. code-block:: {language}", ""]
        if formula is None:
            line = _SPECIAL.sub(_marked, line)
            line = _LETTER.sub(r"\1\\\2.", line)  # C. would begin a list
            line = _NAMES.sub(_unescaped, line)
            line = _linked(line)
        if line.strip():
            before = indent
        found.append(line)
    # A first line without a colon: napoleon takes what is before it for the type of an attribute.
    lines[:] = ["\\", *found] if what in ("property", "attribute", "data") else found


def _readable(app, what, name, obj, options, signature, returned):
    """A key is a PRNGKeyArray, not the three types that this stands for, and so on; a default that is
    made anew each time is an ellipsis, where `<factory>` could not be parsed; one that is a constant is
    its value."""
    if signature in ("(*args, **kwargs)", "(*values)"):  # of a protocol, and of an enumeration
        return "", returned
    if signature:
        for long, short in _SHORT.items():
            signature = signature.replace(long, short)
        signature = _NUMBER.sub(_typed, signature)
        signature = _OBJECT.sub(_named, signature)
        for parameter, default in _constants(obj):
            pattern = rf"(\b{parameter}\b[^=]*?= ?)[\w.]*\b[A-Z][A-Z_]+(?=[,)])"
            signature = re.sub(pattern, rf"\g<1>{default!r}", signature, count=1)
    return signature, returned


def _named(match):
    """A function, a class or a member of an enumeration, from how Python shows it."""
    return (match[1] or match[3] or match[4]).rpartition(".")[2]


def _typed(match):
    """A setting that takes any number, as what its default is."""
    return f": {'int' if match[1].isdecimal() else 'float'} = {match[1]}"


def _constants(obj):
    """Parameters whose default is a number or a string, or some of them, and the default."""
    try:
        parameters = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError):
        return
    for parameter in parameters:
        value = parameter.default
        if isinstance(value, (int, float, str)) or (
            isinstance(value, tuple) and not hasattr(value, "_fields")
        ):
            yield parameter.name, value


def _is_foreign(app, what, name, obj, skip, options):
    """Fields of a named tuple, whose docstrings are Python's; `Attributes` says what they are."""
    return True if (inspect.getdoc(obj) or "").startswith("Alias for field number") else None


def setup(app):
    app.connect("autodoc-process-signature", _readable)
    app.connect("autodoc-skip-member", _is_foreign)
    app.connect("doctree-read", _spaced)
    # Before napoleon, which listens at 500.
    app.connect("autodoc-process-docstring", _plain_text, priority=400)
