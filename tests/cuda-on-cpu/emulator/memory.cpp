#include "memory.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "runtime.h"

namespace cuda_on_cpu {
namespace {

const unsigned char FRESH = 0xCD, FREED = 0xDD, GUARD = 0xFD;
const size_t ALIGNMENT = 256; // as cuMemAlloc promises
#ifdef __SANITIZE_ADDRESS__
const size_t GUARD_BYTES = 0; // the sanitizer has its own, right behind the last byte
#else
const size_t GUARD_BYTES = 256;
#endif

struct Allocation {
    Kind kind;
    size_t bytes;
};

std::map<uintptr_t, Allocation> &allocations() {
    static auto *map = new std::map<uintptr_t, Allocation>;
    return *map;
}

size_t used = 0;

// cuBLAS looks allocations up outside of the driver's lock.
std::recursive_mutex lock;
#define LOCKED std::lock_guard<std::recursive_mutex> guard(lock);

// The allocation that begins at or before the address, if the address is in it or just behind it.
const std::pair<const uintptr_t, Allocation> *find(uintptr_t address) {
    auto next = allocations().upper_bound(address);
    if (next == allocations().begin()) return nullptr;
    auto &found = *std::prev(next);
    return address <= found.first + found.second.bytes ? &found : nullptr;
}

struct ReportLeaks {
    ~ReportLeaks() {
        size_t count = 0;
        for (auto &[start, allocation] : allocations()) count += allocation.kind == Kind::Device;
        if (count) fprintf(stderr, "cuda-on-cpu: %zu device allocations, %zu bytes, were never freed\n", count, used);
    }
} report_leaks;

} // namespace

size_t device_memory() {
    static const size_t bytes = [] {
        const char *text = getenv("CUDA_ON_CPU_MEMORY");
        return text ? strtoull(text, nullptr, 10) : size_t(4) << 30;
    }();
    return bytes;
}

size_t device_memory_used() {
    LOCKED
    return used;
}

void *allocate(Kind kind, size_t bytes) {
    LOCKED
    if (kind == Kind::Device && bytes > device_memory() - used) return nullptr;
    void *block = nullptr;
    if (posix_memalign(&block, ALIGNMENT, bytes + 2 * GUARD_BYTES)) return nullptr;
    auto *start = static_cast<unsigned char *>(block) + GUARD_BYTES;
    memset(block, GUARD, GUARD_BYTES);
    memset(start, FRESH, bytes);
    memset(start + bytes, GUARD, GUARD_BYTES);
    allocations()[reinterpret_cast<uintptr_t>(start)] = {kind, bytes};
    if (kind == Kind::Device) used += bytes;
    return start;
}

bool release(Kind kind, void *start) {
    LOCKED
    auto found = allocations().find(reinterpret_cast<uintptr_t>(start));
    if (found == allocations().end() || found->second.kind != kind) return false;
    check_guards("an allocation was freed");
    if (kind == Kind::Device) used -= found->second.bytes;
    memset(start, FREED, found->second.bytes);
    allocations().erase(found);
    free(static_cast<unsigned char *>(start) - GUARD_BYTES);
    return true;
}

void check_device_range(const void *start, size_t bytes, const char *what) {
    LOCKED
    auto address = reinterpret_cast<uintptr_t>(start);
    auto *found = find(address);
    if (!found || found->second.kind != Kind::Device)
        fail("%s: %p is not device memory (or is freed)", what, start);
    if (bytes > found->first + found->second.bytes - address)
        fail("%s: %zu bytes at offset %zu of an allocation of %zu bytes", what, bytes, size_t(address - found->first),
             found->second.bytes);
}

void check_host_range(const void *start, size_t bytes, const char *what) {
    LOCKED
    auto address = reinterpret_cast<uintptr_t>(start);
    auto *found = bytes ? find(address + bytes - 1) : nullptr;
    if (!found || address + bytes <= found->first) return;
    if (found->second.kind == Kind::Device) fail("%s: %p is device memory, expected host memory", what, start);
    if (address < found->first || address + bytes > found->first + found->second.bytes)
        fail("%s: %zu bytes at %p run over pinned memory of %zu bytes", what, bytes, start, found->second.bytes);
}

void check_kernel_pointer(const void *pointer, const char *kernel, size_t parameter) {
    LOCKED
    if (!pointer) return;
    auto *found = find(reinterpret_cast<uintptr_t>(pointer));
    if (!found || found->second.kind != Kind::Device)
        fail("kernel %s, parameter %zu: %p is not device memory (or is freed)", kernel, parameter, pointer);
}

void check_guards(const char *after) {
    LOCKED
    static const auto pattern = [] {
        auto *bytes = new unsigned char[GUARD_BYTES + 1];
        memset(bytes, GUARD, GUARD_BYTES + 1);
        return bytes;
    }();
    for (auto &[address, allocation] : allocations()) {
        auto *start = reinterpret_cast<unsigned char *>(address);
        if (memcmp(start - GUARD_BYTES, pattern, GUARD_BYTES))
            fail("%s: written just before an allocation of %zu bytes", after, allocation.bytes);
        if (memcmp(start + allocation.bytes, pattern, GUARD_BYTES))
            fail("%s: written just behind an allocation of %zu bytes", after, allocation.bytes);
    }
}

} // namespace cuda_on_cpu
