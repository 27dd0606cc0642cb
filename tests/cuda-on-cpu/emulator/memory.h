// The table of live allocations.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

enum class Kind { Device, PinnedHost };

// Bytes of device memory, from CUDA_ON_CPU_MEMORY.
size_t device_memory();
size_t device_memory_used();

// Null if the device's memory does not suffice.
void *allocate(Kind kind, size_t bytes);
// False if no allocation of this kind begins there.
bool release(Kind kind, void *start);
// Fails unless the bytes lie in one device allocation.
void check_device_range(const void *start, size_t bytes, const char *what);
// Fails if the bytes touch device memory.
void check_host_range(const void *start, size_t bytes, const char *what);
// Fails if the pointer is neither null nor in, or just behind, a device allocation.
void check_kernel_pointer(const void *pointer, const char *kernel, size_t parameter);
// Fails if bytes just before or behind an allocation have changed.
void check_guards(const char *after);

} // namespace cuda_on_cpu
