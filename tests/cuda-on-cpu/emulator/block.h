// Runs the threads of a grid, block after block, a block's threads as fibers.
#pragma once

#include "runtime.h"

namespace cuda_on_cpu {

void run_grid(const Kernel &kernel, dim3 grid, dim3 block, size_t dynamic_shared, void **parameters);

} // namespace cuda_on_cpu
