"""``python -m openautoglm`` is ``autoglm``."""

from openautoglm.cli.main import main

main()
