"""`python -m isthmus` is the command `isthmus`."""

import os
import sys

import isthmus


def _leave_current_folder() -> None:
    """Take the current folder, which `python -m` puts first, off the path that modules are looked for on.

    A data folder may hold a file with the name of a library that is not installed; the command `isthmus` would not
    find it there either. It stays where the package itself lies in it.
    """
    here = os.getcwd()
    package = os.path.dirname(os.path.dirname(os.path.abspath(isthmus.__file__)))
    if sys.path and sys.path[0] in ("", here) and package != here:
        del sys.path[0]


if __name__ == "__main__":
    _leave_current_folder()
    from isthmus.cli import main

    raise SystemExit(main())
