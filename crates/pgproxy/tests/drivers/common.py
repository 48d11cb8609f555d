"""What the programs share: where to go, and what they are asked to do.

`check one-node` or `check two-nodes`: everything, each check by name, where one node answers or a replica as well. `write`: single statements that write one number after another, each said on standard
output once it is acknowledged, until standard input ends. Nothing is tried twice.
"""

import asyncio
import os
import sys
import threading

url = os.environ["DATABASE_URL"]


def run(arguments, checks, write):
    mode = arguments[1]
    if mode == "check":
        for check in checks:
            print(check.__name__, flush=True)
            if asyncio.iscoroutinefunction(check):
                asyncio.run(check())
            else:
                check()
    elif mode == "write":
        if asyncio.iscoroutinefunction(write):
            asyncio.run(write(Acknowledged()))
        else:
            write(Acknowledged())
    else:
        sys.exit(f"check or write, not {mode}")


class Acknowledged:
    """Gives the next number to a function that writes it, and says so. False once standard input has ended."""

    def __init__(self):
        self.next = 0
        self.ended = threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self):
        sys.stdin.read()
        self.ended.set()

    def __call__(self, write):
        self.next += 1
        write(self.next)
        print(self.next, flush=True)
        return not self.ended.is_set()

    async def wait_for(self, write):
        self.next += 1
        await write(self.next)
        print(self.next, flush=True)
        return not self.ended.is_set()
