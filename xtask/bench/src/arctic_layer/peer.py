"""The other side of `moeprune-bench arctic-layer` and `cargo xtask bench-peers`: Wanda masks by PyTorch.

Arguments: directory, rows, columns, ratio, threads, device. For each line of the input that names a
way to prune, prunes a fresh copy of the matrix so and answers with the wall and CPU seconds it took;
"compare" is answered by whether the last mask is the one in the directory.
"""

import pathlib
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import torch

directory = pathlib.Path(sys.argv[1])
rows, cols, ratio, threads = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
device = torch.device(sys.argv[6])
torch.set_num_threads(threads)


def settle():
    """Waits for the work queued on a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def load(name, dtype):
    return torch.frombuffer(bytearray((directory / name).read_bytes()), dtype=dtype).to(device)


weights = load("weights.bf16", torch.bfloat16).reshape(rows, cols)
scaler_row = load("mean_squares.f32", torch.float32)
count = int(cols * ratio)


def scores(matrix):
    return torch.abs(matrix) * torch.sqrt(scaler_row.reshape((1, -1)))


def published(matrix):
    """The operations, one by one, of the code that came with the Wanda paper."""
    metric = scores(matrix)
    mask = torch.zeros_like(metric) == 1
    order = torch.sort(metric, dim=-1, stable=True)
    mask.scatter_(1, order[1][:, :count], True)
    matrix[mask] = 0
    return mask


def topk(matrix):
    """Selection instead of sorting; which of equal scores go is not defined."""
    metric = scores(matrix)
    mask = torch.zeros_like(metric, dtype=torch.bool)
    if count:
        mask.scatter_(1, torch.topk(metric, count, dim=1, largest=False, sorted=False).indices, True)
    matrix.masked_fill_(mask, 0)
    return mask


def kthvalue(matrix):
    """A threshold for each row; all of the scores equal to it go."""
    metric = scores(matrix)
    if count:
        mask = metric <= torch.kthvalue(metric, count, dim=1, keepdim=True).values
    else:
        mask = torch.zeros_like(metric, dtype=torch.bool)
    matrix.masked_fill_(mask, 0)
    return mask


def compare(mask):
    packed = load("mask.bits", torch.uint8).reshape(rows, -1)
    # A packed row has its first column in the highest bit.
    bits = torch.stack([packed >> shift & 1 for shift in range(7, -1, -1)], dim=2)
    ours = bits.reshape(rows, -1)[:, :cols].bool()
    different = int((ours != mask).sum())
    return f"masks differ in {different} of {rows * cols} places" if different else "equal masks"


ways = {way.__name__: way for way in (published, topk, kthvalue)}
last = None
if device.type == "cuda":
    where = torch.cuda.get_device_name(device)
else:
    where = f"{torch.get_num_threads()} ({torch.backends.cpu.get_cpu_capability()})"
print(f"torch {torch.__version__} on {where}", flush=True)
for line in sys.stdin:
    name = line.strip()
    if name == "compare":
        print(compare(last), flush=True)
        continue
    last = None
    copy = weights.clone()
    settle()
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        last = ways[name](copy)
    settle()
    print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
