"""Runs the command line as `python -m personalive`, where the command is not on the path."""

from personalive.cli.app import main

main()
