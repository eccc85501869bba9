"""Build the documentation: `make docs`. Reading it loads nothing from the network."""

from sptskm import __version__

project = "sptskm"
author = "the sptskm authors"
copyright = f"2026 {author}"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"sptskm {version}"
exclude_patterns = ["_build"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_mock_imports = ["submitit", "ray"]
suppress_warnings = ["misc.highlighting_failure"]
