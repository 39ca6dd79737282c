#!/usr/bin/env python3
"""Runs a command and prints the most anonymous memory that its process had at once, in bytes.

usage: peak_memory.py COMMAND...

Anonymous memory is that without pages of files. It is read from /proc every 2 ms: the kernel keeps a peak of all resident
memory only, pages of files with it. Standard output of the command goes to standard error. The exit status is the command's.
"""
import subprocess
import sys
import time


def read_anonymous(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


def main():
    process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
    peak = 0
    while process.poll() is None:
        peak = max(peak, read_anonymous(process.pid))
        time.sleep(0.002)
    print(peak)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
