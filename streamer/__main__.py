"""`python -m streamer` is `watchword`."""

from streamer.cli import main

main()
