"""``python -m gpulstm``: the same as the command ``gpulstm``."""

from gpulstm.cli import main

main()
