// The entry points of libcuda.so.1. One device, everything synchronous, one lock around everything.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <mutex>
#include <set>
#include <sstream>

#include "block.h"
#include "memory.h"
#include "module.h"

using namespace cuda_on_cpu;

namespace {

enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_PTX = 218,
    FILE_NOT_FOUND = 301,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    LAUNCH_OUT_OF_RESOURCES = 701,
    NOT_SUPPORTED = 801,
};

const size_t MAX_SHARED_BY_DEFAULT = 48 * 1024, MAX_SHARED = 227 * 1024;
const unsigned MAX_THREADS = 1024, MULTIPROCESSORS = 132, THREADS_OF_MULTIPROCESSOR = 2048;

std::recursive_mutex lock;
bool initialized = false;
int device_context, default_pool; // only their addresses matter
thread_local void *current_context = nullptr;

struct Event {
    timespec recorded;
    bool timed, is_recorded;
};
std::set<Event *> events;
std::set<void *> streams;

bool is_stream(void *stream) {
    return reinterpret_cast<uintptr_t>(stream) <= 2 || streams.count(stream); // 0 to 2: the default streams
}

// What most entry points begin with.
#define ENTER(stream)                                                                                                  \
    std::lock_guard<std::recursive_mutex> guard(lock);                                                                 \
    if (!initialized) return NOT_INITIALIZED;                                                                          \
    if (!current_context) return INVALID_CONTEXT;                                                                      \
    if (!is_stream(stream)) return INVALID_HANDLE;

int copy(void *to, bool to_device, const void *from, bool from_device, size_t bytes, const char *name) {
    if (!bytes) return SUCCESS;
    std::string what = std::string(name) + ", destination";
    to_device ? check_device_range(to, bytes, what.c_str()) : check_host_range(to, bytes, what.c_str());
    what = std::string(name) + ", source";
    from_device ? check_device_range(from, bytes, what.c_str()) : check_host_range(from, bytes, what.c_str());
    memmove(to, from, bytes);
    return SUCCESS;
}

template <class T> int fill(void *to, T value, size_t count, const char *name) {
    if (!count) return SUCCESS;
    if (reinterpret_cast<uintptr_t>(to) % sizeof(T)) return INVALID_VALUE;
    check_device_range(to, count * sizeof(T), name);
    for (size_t i = 0; i < count; ++i) static_cast<T *>(to)[i] = value;
    return SUCCESS;
}

int allocate_device(void **address, size_t bytes) {
    if (!bytes) return INVALID_VALUE;
    *address = allocate(Kind::Device, bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

int free_device(void *address, const char *name) {
    if (address && !release(Kind::Device, address)) fail("%s: no device allocation begins at %p", name, address);
    return SUCCESS;
}

int blocks_of_multiprocessor(const Function &function, int threads, size_t dynamic_shared) {
    size_t shared = function.entry.static_shared + dynamic_shared + 1024; // the driver keeps 1 KB for itself
    size_t blocks = THREADS_OF_MULTIPROCESSOR / threads;
    if (blocks > 32) blocks = 32;
    return blocks < MAX_SHARED / shared ? blocks : MAX_SHARED / shared;
}

int unsupported(const char *name) {
    fprintf(stderr, "cuda-on-cpu: %s is not emulated\n", name);
    return NOT_SUPPORTED;
}

} // namespace

#define UNSUPPORTED(name)                                                                                              \
    extern "C" int name() { return unsupported(#name); }
#include "unsupported.inc"
#undef UNSUPPORTED

extern "C" {

// Errors

int cuGetErrorName(int error, const char **name) {
    switch (error) {
    case SUCCESS: *name = "CUDA_SUCCESS"; break;
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case NOT_INITIALIZED: *name = "CUDA_ERROR_NOT_INITIALIZED"; break;
    case INVALID_DEVICE: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
    case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
    case INVALID_PTX: *name = "CUDA_ERROR_INVALID_PTX"; break;
    case FILE_NOT_FOUND: *name = "CUDA_ERROR_FILE_NOT_FOUND"; break;
    case INVALID_HANDLE: *name = "CUDA_ERROR_INVALID_HANDLE"; break;
    case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case LAUNCH_OUT_OF_RESOURCES: *name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
    case NOT_SUPPORTED: *name = "CUDA_ERROR_NOT_SUPPORTED"; break;
    default: *name = nullptr; return INVALID_VALUE;
    }
    return SUCCESS;
}
int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

// Device and context

int cuInit(unsigned) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    load_kernel_libraries();
    initialized = true;
    return SUCCESS;
}
int cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = 1, initialized ? SUCCESS : NOT_INITIALIZED; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal ? INVALID_DEVICE : SUCCESS; }
int cuDeviceGetName(char *name, int bytes, int) { return snprintf(name, bytes, "CPU emulation"), SUCCESS; }
int cuDeviceGetUuid_v2(char *uuid, int) { return memcpy(uuid, "cuda-on-cpu\0\0\0\0", 16), SUCCESS; }
int cuDeviceGetUuid(char *uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = device_memory(), SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 1: case 2: case 3: *value = MAX_THREADS; break;     // threads of a block; its x and y
    case 4: *value = 64; break;                              // its z
    case 5: *value = 0x7fffffff; break;                      // x of a grid
    case 6: case 7: *value = 65535; break;                   // y and z of a grid
    case 8: *value = MAX_SHARED_BY_DEFAULT; break;           // shared memory of a block
    case 9: *value = 65536; break;                           // constant memory
    case 10: *value = 32; break;                             // warp size
    case 12: case 82: *value = 65536; break;                 // registers of a block, of a multiprocessor
    case 13: *value = 1000000; break;                        // clock rate, kHz
    case 16: *value = MULTIPROCESSORS; break;
    case 31: case 41: case 95: *value = 1; break;            // concurrent kernels, unified addressing, cooperative launch
    case 36: *value = 1000000; break;                        // memory clock rate, kHz
    case 37: *value = 5120; break;                           // memory bus width, bits
    case 38: *value = 50 << 20; break;                       // L2 cache
    case 39: *value = THREADS_OF_MULTIPROCESSOR; break;
    case 40: *value = 3; break;                              // copy engines
    case 75: *value = 9; break;                              // compute capability, major and minor
    case 76: *value = 0; break;
    case 81: *value = 228 * 1024; break;                     // shared memory of a multiprocessor
    case 97: *value = MAX_SHARED; break;                     // shared memory of a block that asks
    case 106: *value = 32; break;                            // blocks of a multiprocessor
    case 111: *value = 1024; break;                          // shared memory kept by the driver
    case 115: *value = 1; break;                             // memory pools: cuMemAllocAsync works
    default: *value = 0;
    }
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void **context, int) {
    return *context = &device_context, initialized ? SUCCESS : NOT_INITIALIZED;
}
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxSetCurrent(void *context) { return current_context = context, SUCCESS; }
int cuCtxGetCurrent(void **context) { return *context = current_context, SUCCESS; }
int cuCtxGetDevice(int *device) { return *device = 0, current_context ? SUCCESS : INVALID_CONTEXT; }
int cuCtxSynchronize() { return current_context ? SUCCESS : INVALID_CONTEXT; }
int cuCtxSetFlags(unsigned) { return SUCCESS; }
int cuCtxSetLimit(int, size_t) { return SUCCESS; }
int cuCtxSetCacheConfig(int) { return SUCCESS; }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = 0, *greatest = -5, SUCCESS; }
int cuProfilerStart() { return SUCCESS; }
int cuProfilerStop() { return SUCCESS; }

// Streams and events

int cuStreamCreate(void **stream, unsigned) {
    ENTER(nullptr)
    streams.insert(*stream = new char);
    return SUCCESS;
}
int cuStreamCreateWithPriority(void **stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
int cuStreamDestroy_v2(void *stream) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!streams.erase(stream)) return INVALID_HANDLE;
    delete static_cast<char *>(stream);
    return SUCCESS;
}
int cuStreamSynchronize(void *stream) {
    ENTER(stream)
    return SUCCESS;
}
int cuStreamQuery(void *stream) { return cuStreamSynchronize(stream); }
int cuStreamIsCapturing(void *, int *status) { return *status = 0, SUCCESS; }
int cuStreamWaitEvent(void *stream, Event *event, unsigned) {
    ENTER(stream)
    return events.count(event) ? SUCCESS : INVALID_HANDLE;
}
int cuLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    {
        ENTER(stream)
    }
    function(data);
    return SUCCESS;
}
int cuEventCreate(Event **event, unsigned flags) {
    ENTER(nullptr)
    const unsigned DISABLE_TIMING = 2;
    events.insert(*event = new Event{{}, !(flags & DISABLE_TIMING), false});
    return SUCCESS;
}
int cuEventDestroy_v2(Event *event) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!events.erase(event)) return INVALID_HANDLE;
    delete event;
    return SUCCESS;
}
int cuEventRecord(Event *event, void *stream) {
    ENTER(stream)
    if (!events.count(event)) return INVALID_HANDLE;
    clock_gettime(CLOCK_MONOTONIC, &event->recorded);
    event->is_recorded = true;
    return SUCCESS;
}
int cuEventSynchronize(Event *event) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    return events.count(event) ? SUCCESS : INVALID_HANDLE;
}
int cuEventQuery(Event *event) { return cuEventSynchronize(event); }
int cuEventElapsedTime_v2(float *milliseconds, Event *start, Event *end) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    for (Event *event : {start, end})
        if (!events.count(event) || !event->timed || !event->is_recorded) return INVALID_HANDLE;
    *milliseconds = (end->recorded.tv_sec - start->recorded.tv_sec) * 1e3f +
                    (end->recorded.tv_nsec - start->recorded.tv_nsec) * 1e-6f;
    return SUCCESS;
}
int cuEventElapsedTime(float *milliseconds, Event *start, Event *end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

// Memory

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    ENTER(nullptr)
    *total = device_memory();
    *free = *total - device_memory_used();
    return SUCCESS;
}
int cuMemAlloc_v2(void **address, size_t bytes) {
    ENTER(nullptr)
    return allocate_device(address, bytes);
}
int cuMemAllocAsync(void **address, size_t bytes, void *stream) {
    ENTER(stream)
    return allocate_device(address, bytes);
}
int cuMemAllocFromPoolAsync(void **address, size_t bytes, void *, void *stream) {
    return cuMemAllocAsync(address, bytes, stream);
}
int cuMemFree_v2(void *address) {
    ENTER(nullptr)
    return free_device(address, "cuMemFree");
}
int cuMemFreeAsync(void *address, void *stream) {
    ENTER(stream)
    return free_device(address, "cuMemFreeAsync");
}
int cuDeviceGetDefaultMemPool(void **pool, int) { return *pool = &default_pool, SUCCESS; }
int cuDeviceGetMemPool(void **pool, int) { return *pool = &default_pool, SUCCESS; }
int cuMemPoolTrimTo(void *, size_t) { return SUCCESS; }
int cuMemPoolSetAttribute(void *, int, void *) { return SUCCESS; }
int cuMemPoolGetAttribute(void *, int attribute, void *value) {
    ENTER(nullptr)
    const int RESERVED = 5, USED = 7; // bytes now
    if (attribute != RESERVED && attribute != USED) return unsupported("cuMemPoolGetAttribute");
    *static_cast<uint64_t *>(value) = device_memory_used();
    return SUCCESS;
}
int cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    ENTER(nullptr)
    if (!bytes) return INVALID_VALUE;
    *address = allocate(Kind::PinnedHost, bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}
int cuMemAllocHost_v2(void **address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }
int cuMemFreeHost(void *address) {
    ENTER(nullptr)
    if (!release(Kind::PinnedHost, address)) fail("cuMemFreeHost: no pinned allocation begins at %p", address);
    return SUCCESS;
}
int cuMemHostRegister_v2(void *, size_t, unsigned) { return SUCCESS; }
int cuMemHostUnregister(void *) { return SUCCESS; }
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
    ENTER(stream)
    return copy(to, true, from, false, bytes, "cuMemcpyHtoD");
}
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
    ENTER(stream)
    return copy(to, false, from, true, bytes, "cuMemcpyDtoH");
}
int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
    ENTER(stream)
    return copy(to, true, from, true, bytes, "cuMemcpyDtoD");
}
int cuMemcpyPeerAsync(void *to, void *, const void *from, void *, size_t bytes, void *stream) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}
int cuMemcpyHtoD_v2(void *to, const void *from, size_t bytes) { return cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr); }
int cuMemcpyDtoH_v2(void *to, const void *from, size_t bytes) { return cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr); }
int cuMemcpyDtoD_v2(void *to, const void *from, size_t bytes) { return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr); }
int cuMemsetD8Async(void *to, unsigned char value, size_t count, void *stream) {
    ENTER(stream)
    return fill(to, value, count, "cuMemsetD8");
}
int cuMemsetD16Async(void *to, unsigned short value, size_t count, void *stream) {
    ENTER(stream)
    return fill(to, value, count, "cuMemsetD16");
}
int cuMemsetD32Async(void *to, unsigned value, size_t count, void *stream) {
    ENTER(stream)
    return fill(to, value, count, "cuMemsetD32");
}
int cuMemsetD8_v2(void *to, unsigned char value, size_t count) { return cuMemsetD8Async(to, value, count, nullptr); }

// Modules and kernels

int cuModuleLoadData(Module **module, const char *image) {
    ENTER(nullptr)
    if (!memcmp(image, "\x7f" "ELF", 4)) return INVALID_PTX; // a cubin: expected PTX
    *module = parse_module(image);
    return SUCCESS;
}
int cuModuleLoad(Module **module, const char *path) {
    std::ifstream file(path);
    if (!file) return FILE_NOT_FOUND;
    std::stringstream text;
    text << file.rdbuf();
    return cuModuleLoadData(module, text.str().c_str());
}
int cuModuleUnload(Module *module) { return delete module, SUCCESS; }
int cuModuleGetFunction(Function **function, Module *module, const char *name) {
    ENTER(nullptr)
    *function = find_function(*module, name);
    return *function ? SUCCESS : NOT_FOUND;
}
int cuFuncSetCacheConfig(Function *, int) { return SUCCESS; }
int cuFuncSetAttribute(Function *function, int attribute, int value) {
    ENTER(nullptr)
    const int MAX_DYNAMIC_SHARED = 8, CARVEOUT = 9;
    if (attribute == CARVEOUT) return SUCCESS;
    if (attribute != MAX_DYNAMIC_SHARED) return unsupported("cuFuncSetAttribute");
    if (value < 0 || value + function->entry.static_shared > MAX_SHARED) return INVALID_VALUE;
    function->max_dynamic_shared = value;
    return SUCCESS;
}
int cuFuncGetAttribute(int *value, int attribute, Function *function) {
    ENTER(nullptr)
    switch (attribute) {
    case 0: *value = function->entry.max_threads ? function->entry.max_threads : MAX_THREADS; break;
    case 1: *value = function->entry.static_shared; break;
    case 4: *value = 32; break; // registers: not known here
    case 5: case 6: *value = 90; break;
    case 8: *value = function->max_dynamic_shared; break;
    default: *value = 0;
    }
    return SUCCESS;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Function *function, int threads, size_t shared) {
    return *blocks = blocks_of_multiprocessor(*function, threads, shared), SUCCESS;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, Function *function, int threads, size_t shared,
                                                         unsigned) {
    return *blocks = blocks_of_multiprocessor(*function, threads, shared), SUCCESS;
}
int cuLaunchKernel(Function *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned dynamic_shared, void *stream, void **parameters,
                   void **extra) {
    ENTER(stream)
    const Kernel &kernel = *function->kernel;
    if (extra) return unsupported("cuLaunchKernel with extra");
    if (!grid_x || !grid_y || !grid_z || grid_x > 0x7fffffff || grid_y > 65535 || grid_z > 65535) return INVALID_VALUE;
    uint64_t threads = uint64_t(block_x) * block_y * block_z;
    if (!threads || threads > MAX_THREADS || block_z > 64) return INVALID_VALUE;
    if (function->entry.max_threads && threads > function->entry.max_threads) return INVALID_VALUE;
    if (dynamic_shared > function->max_dynamic_shared) return INVALID_VALUE;
    if (dynamic_shared + function->entry.static_shared > MAX_SHARED) return INVALID_VALUE;
    for (size_t i = 0; i < kernel.parameters; ++i)
        if (kernel.parameter_is_pointer[i]) check_kernel_pointer(*static_cast<void **>(parameters[i]), kernel.name, i);
    run_grid(kernel, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, dynamic_shared, parameters);
    check_guards(kernel.name);
    return SUCCESS;
}

} // extern "C"
