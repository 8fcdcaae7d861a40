"""How `nox -s docs` builds the pages: Markdown for people, docstrings for the reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import equos_async

ROOT = Path(__file__).parent.parent

project = "equos-async"
author = "the equos-async authors"
release = version = equos_async.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"equos-async {release}"
html_show_copyright = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["page.css"]

myst_heading_anchors = 3
maximum_signature_line_length = 80
autodoc_member_order = "bysource"
napoleon_use_ivar = True
python_use_unqualified_type_names = True

# Names of other projects are not linked: that would need their sites at each build.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(aiohttp|asyncio|attrs|collections|contextlib|datetime|opentelemetry|os|signal|ssl|types)\..*",
    ),
    (
        r"py:.*",
        r"[a-z]+|[A-Z][A-Za-z]*Error|EventKind|OperationName|ResourceName|PathLike|typing\..*",
    ),
    (
        r"py:.*",
        r"equos_async\.(fleet\.(_session\.HandOver|values\.K(_co)?)|testing\.faults\.When|clock\.Timer)",
    ),
]


def first_page(_: Any, name: str, content: list[str]) -> None:
    """Make the README the first page; links from it and to it are written for both places."""
    if name == "index":
        text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](.docs/", "](")
        text = text.replace("](.github/CONTRIBUTING.md", "](contributing.md")
        for folder in ("examples/", ".github/", ".pre-commit"):
            text = text.replace(f"]({folder}", f"](../{folder}")
        content[0] = text + content[0]
    here = "../index.md" if name.startswith("api/") else "index.md"
    content[0] = content[0].replace(f"]({here.replace('index', '../README')}", f"]({here}")


def public_name(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Find what lives in `equos_async.models`, say, under the name that users import."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    if node.get("refdomain") != "py" or not module.startswith("equos_async."):
        return None
    package = "equos_async.testing" if "testing" in module else "equos_async"
    where = (env, node["refdoc"], app.builder, node["reftype"], f"{package}.{name}")
    return env.domains["py"].resolve_xref(*where, node, content)


def signature(_: Any, kind: str, *rest: Any) -> Any:
    """Show `Limits()` as a default and not all that is in it; nobody makes our exceptions."""
    args, back = rest[-2:]
    if kind == "exception":
        return "", ""
    args = re.sub(r"= (Timeouts|Limits|RetryPolicy|Settle)\([^()]*\)", r"= \1()", args or "")
    return args.replace("= NOTHING", "= {}") or None, back


def setup(app: Any) -> None:
    """Connect them; called by Sphinx."""
    app.connect("autodoc-process-signature", signature)
    app.connect("source-read", first_page)
    app.connect("missing-reference", public_name)
