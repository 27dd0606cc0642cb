"""Observes a model in parts on a Ray cluster and merges them.

    python observe_ray.py OBS PARTS MODEL OPTION...

OPTION... are those of `moeprune observe MODEL`. All machines need moeprune, the model, the text and OBS under these paths, which
are absolute. RAY_ADDRESS names the cluster (without it: this machine); CPUS is what a part takes of a machine (default 1). A part
whose process or machine dies is tried again; run again, parts that are finished are recognised and passed over, and an
observation that is there is not made again.
"""

import os
import subprocess
import sys

import ray

obs, parts, *options = sys.argv[1:]
moeprune = os.environ.get("MOEPRUNE", "moeprune")
if os.path.exists(obs):
    sys.exit(print(f"{obs} is there already"))


@ray.remote(num_cpus=float(os.environ.get("CPUS", "1")), max_retries=3, retry_exceptions=True)
def observe(part):
    os.makedirs(f"{obs}.parts", exist_ok=True)
    path = f"{obs}.parts/{part}.safetensors"
    subprocess.run([moeprune, "observe", *options, "--part", f"{part}/{parts}", "--resume", "-o", path], check=True)
    return path


ray.init()
paths = ray.get([observe.remote(part) for part in range(1, int(parts) + 1)])
subprocess.run([moeprune, "merge", *paths, "-o", obs], check=True)
