"""What torch needs to decode FP8 blocks and four-bit codes, a tile of rows at a time, on one thread."""

import sys
import time

import torch

rows, cols, tile, passes = map(int, sys.argv[1:5])
torch.set_num_threads(1)
out = torch.empty(tile, cols)


def fp8():
    codes = torch.randint(0, 0x7F, (rows, cols), dtype=torch.uint8).view(torch.float8_e4m3fn)
    scales = torch.full((rows // 128, cols // 128), 0.013)

    def decode(row, count):
        part = out[:count].view(count, cols // 128, 128)
        part.copy_(codes[row : row + count].view(count, cols // 128, 128))
        part.mul_(scales[torch.arange(row, row + count) // 128].unsqueeze(-1))

    return decode


def int4():
    words = torch.randint(-(2**31), 2**31 - 1, (rows, cols // 8), dtype=torch.int32)
    scales = torch.full((rows, cols // 32), 0.013, dtype=torch.bfloat16)
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)

    def decode(row, count):
        codes = ((words[row : row + count].unsqueeze(-1) >> shifts) & 15) - 8
        scale = scales[row : row + count].float().unsqueeze(-1)
        torch.mul(codes.view(count, -1, 32), scale, out=out[:count].view(count, -1, 32))

    return decode


def mxfp4():
    codes = torch.randint(0, 255, (rows, cols // 2), dtype=torch.uint8)
    exponents = torch.full((rows, cols // 32), -7, dtype=torch.int32)
    magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    table = torch.tensor(magnitudes + [-value for value in magnitudes])

    def decode(row, count):
        part = codes[row : row + count]
        both = torch.stack((part & 15, part >> 4), -1).view(count, -1, 32)
        exponent = exponents[row : row + count].unsqueeze(-1)
        torch.ldexp(table[both.int()], exponent, out=out[:count].view(count, -1, 32))

    return decode


for name, prepare in (("fp8, blocks of 128x128", fp8), ("int4 per 32", int4), ("mxfp4", mxfp4)):
    decode, times = prepare(), []
    for _ in range(passes):
        start = time.perf_counter()
        for row in range(0, rows, tile):
            decode(row, min(tile, rows - row))
        times.append((time.perf_counter() - start) * 1e9 / (rows * cols))
    times.sort()
    print(f"{'torch ' + torch.__version__ + ', ' + name:34}{times[0]:8.3f}{times[len(times) // 2]:8.3f}")
