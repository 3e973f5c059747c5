"""Processes that a tested one has started."""

from pathlib import Path


def children_of(parent_pid: int) -> dict[int, str]:
    """The command line of each living child, by process id."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, parent = (folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == parent_pid and state != "Z":
            found[int(folder.name)] = command
    return found
