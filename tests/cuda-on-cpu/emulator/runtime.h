// What the pieces of the emulated driver, and the kernels compiled for it, know of each other.
#pragma once

#include <cstddef>
#include <cstdint>

struct Index3 {
    unsigned x, y, z;
};

struct dim3 : Index3 {
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : Index3{x, y, z} {}
};

extern "C" {
extern Index3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
}

namespace cuda_on_cpu {

// A kernel as its library registers it.
struct Kernel {
    const char *name;
    void (*call)(void **parameters);
    const size_t *parameter_sizes;
    const bool *parameter_is_pointer;
    size_t parameters;
};

void register_kernel(const Kernel &kernel);

// Where the running thread is, for messages.
struct Place {
    const char *operation;
    const char *file;
    int line;
};

// Waits until every thread of the block is here; returns how many came with `value` set.
int block_barrier(bool value, Place place);
// Waits until every thread of the warp named in `mask` is here; returns the values that they brought, by lane.
const uint64_t *warp_exchange(unsigned mask, uint64_t value, Place place);
// Lanes of the running thread's warp that exist: the last warp of a block may have fewer than 32.
unsigned existing_lanes();
unsigned lane();
// From now on, each launch makes `pointer` point to its dynamic shared memory. Returns that of the running launch.
void *point_to_dynamic_shared_memory(void **pointer);
// Shared memory for one `__shared__` variable, for as long as the process runs.
void *new_static_shared_memory(size_t bytes);
[[noreturn]] void trap(Place place);

// Prints what is wrong, with the kernel and thread if one runs, and aborts.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char *format, ...);

} // namespace cuda_on_cpu
