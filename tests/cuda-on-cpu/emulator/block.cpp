#include "block.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fiber.h"

extern "C" {
Index3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
}

namespace cuda_on_cpu {
namespace {

const unsigned WARP = 32;
const unsigned char FRESH = 0xCD;              // what shared memory holds when a block begins
const uint64_t NO_VALUE = 0xCDCDCDCDCDCDCDCD; // what a lane outside of the mask is seen to bring

enum class State { Unstarted, Ready, AtBarrier, InWarp, Returned };

struct Thread {
    State state;
    Index3 index;
    Fiber *fiber;
    Place place;
    bool barrier_value;
    int barrier_count;
    unsigned mask;
    uint64_t brought;
    uint64_t seen[WARP];
};

// The block that runs. One at a time: launches hold the driver's lock.
const Kernel *kernel = nullptr;
void **kernel_parameters;
std::vector<Thread> threads;
std::vector<Fiber *> idle_fibers;
size_t started, waiting, returned;
Thread *current = nullptr;
unsigned char *shared = nullptr; // dynamic shared memory
std::vector<void **> shared_pointers;
std::vector<std::pair<void *, size_t>> static_shared;
bool backwards;

size_t number(const Thread &thread) { return &thread - threads.data(); }

std::string describe(State state, const Thread &thread) {
    switch (state) {
    case State::Returned: return "returned";
    case State::AtBarrier:
    case State::InWarp:
        return std::string("waits in ") + thread.place.operation + ", " + thread.place.file + ":" +
               std::to_string(thread.place.line);
    default: return "runs";
    }
}

// Which threads are where, neighbours in the same place taken together.
[[noreturn]] void fail_with_places(const char *why) {
    std::string list;
    for (size_t from = 0; from < threads.size();) {
        std::string text = describe(threads[from].state, threads[from]);
        size_t to = from + 1;
        while (to < threads.size() && describe(threads[to].state, threads[to]) == text) ++to;
        list += "\n  threads " + std::to_string(from) + " to " + std::to_string(to - 1) + ": " + text;
        from = to;
    }
    current = nullptr;
    fail("%s%s", why, list.c_str());
}

bool same(const Place &a, const Place &b) {
    return a.line == b.line && !strcmp(a.operation, b.operation) && !strcmp(a.file, b.file);
}

void take(Thread &thread) {
    current = &thread;
    threadIdx = thread.index;
}

void wait() {
    Thread *self = current;
    while (self->state != State::Ready) Fiber::pause();
}

// What each fiber does: threads that have not begun, one after another. A thread that never waits costs a call.
void run_threads() {
    for (;;) {
        while (started < threads.size()) {
            size_t next = started++;
            Thread &thread = threads[backwards ? threads.size() - 1 - next : next];
            thread.state = State::Ready;
            thread.fiber = idle_fibers.back(); // the scheduler put this fiber there
            idle_fibers.pop_back();
            take(thread);
            kernel->call(kernel_parameters);
            thread.state = State::Returned;
            ++returned;
            idle_fibers.push_back(thread.fiber);
        }
        Fiber::pause();
    }
}

void run_block() {
    started = waiting = returned = 0;
    while (returned < threads.size()) {
        bool progress = false;
        while (started < threads.size()) {
            if (idle_fibers.empty()) idle_fibers.push_back(new Fiber(run_threads));
            idle_fibers.back()->resume();
            progress = true;
        }
        for (size_t i = 0; i < threads.size(); ++i) {
            Thread &thread = threads[backwards ? threads.size() - 1 - i : i];
            if (thread.state != State::Ready) continue;
            take(thread);
            thread.fiber->resume();
            progress = true;
        }
        current = nullptr;
        if (!progress) fail_with_places("threads wait for others that never come");
    }
}

// Exactly as large as asked for, so that the sanitizer sees the end.
unsigned char *new_shared_memory(size_t bytes) {
    void *memory = nullptr;
    if (posix_memalign(&memory, 128, bytes)) fail("no memory for %zu bytes of shared memory", bytes);
    return static_cast<unsigned char *>(memory);
}

} // namespace

void run_grid(const Kernel &launched, dim3 grid, dim3 block, size_t dynamic_shared, void **parameters) {
    static const char *order = getenv("CUDA_ON_CPU_ORDER");
    backwards = order && !strcmp(order, "backwards");
    kernel = &launched;
    kernel_parameters = parameters;
    gridDim = grid;
    blockDim = block;
    threads.assign(size_t(block.x) * block.y * block.z, {});
    shared = new_shared_memory(dynamic_shared);
    for (void **pointer : shared_pointers) *pointer = shared;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                memset(shared, FRESH, dynamic_shared);
                for (auto &[memory, bytes] : static_shared) memset(memory, FRESH, bytes);
                Index3 index{0, 0, 0};
                for (Thread &thread : threads) {
                    thread.state = State::Unstarted;
                    thread.index = index;
                    if (++index.x == block.x) {
                        index.x = 0;
                        if (++index.y == block.y) {
                            index.y = 0;
                            ++index.z;
                        }
                    }
                }
                run_block();
            }
    free(shared);
    shared = nullptr;
    kernel = nullptr;
}

int block_barrier(bool value, Place place) {
    Thread *self = current;
    self->place = place;
    self->barrier_value = value;
    self->state = State::AtBarrier;
    if (++waiting == threads.size()) {
        waiting = 0;
        int count = 0;
        for (Thread &thread : threads) {
            if (!same(thread.place, place)) fail_with_places("threads of a block wait at different barriers");
            count += thread.barrier_value;
        }
        for (Thread &thread : threads) {
            thread.barrier_count = count;
            thread.state = State::Ready;
        }
    }
    wait();
    return self->barrier_count;
}

const uint64_t *warp_exchange(unsigned mask, uint64_t value, Place place) {
    Thread *self = current;
    size_t first = number(*self) / WARP * WARP;
    size_t end = first + WARP < threads.size() ? first + WARP : threads.size();
    if (!(mask >> lane() & 1)) fail("%s:%d: %s without its own lane in the mask %08x", place.file, place.line,
                                    place.operation, mask);
    self->place = place;
    self->mask = mask;
    self->brought = value;
    self->state = State::InWarp;
    bool complete = true;
    for (size_t i = first; i < end; ++i) {
        const Thread &thread = threads[i];
        if (!(mask >> (i - first) & 1)) continue;
        if (thread.state == State::Returned) fail_with_places("a lane named in the mask has returned");
        complete &= thread.state == State::InWarp;
    }
    if (complete) {
        uint64_t values[WARP];
        for (uint64_t &unset : values) unset = NO_VALUE;
        for (size_t i = first; i < end; ++i) {
            if (!(mask >> (i - first) & 1)) continue;
            if (threads[i].mask != mask || !same(threads[i].place, place))
                fail_with_places("lanes named in one mask wait in different operations, or with different masks");
            values[i - first] = threads[i].brought;
        }
        for (size_t i = first; i < end; ++i) {
            if (!(mask >> (i - first) & 1)) continue;
            memcpy(threads[i].seen, values, sizeof values);
            threads[i].state = State::Ready;
        }
    }
    wait();
    return self->seen;
}

unsigned lane() { return number(*current) % WARP; }

unsigned existing_lanes() {
    size_t first = number(*current) / WARP * WARP, count = threads.size() - first;
    return count < WARP ? (1u << count) - 1 : 0xffffffff;
}

void *point_to_dynamic_shared_memory(void **pointer) {
    shared_pointers.push_back(pointer);
    return shared;
}

void *new_static_shared_memory(size_t bytes) {
    unsigned char *memory = new_shared_memory(bytes);
    memset(memory, FRESH, bytes);
    static_shared.emplace_back(memory, bytes);
    return memory;
}

void trap(Place place) { fail("%s:%d: %s", place.file, place.line, place.operation); }

void fail(const char *format, ...) {
    fprintf(stderr, "cuda-on-cpu: ");
    if (kernel) fprintf(stderr, "kernel %s, block (%u, %u, %u), ", kernel->name, blockIdx.x, blockIdx.y, blockIdx.z);
    if (current) fprintf(stderr, "thread (%u, %u, %u), ", current->index.x, current->index.y, current->index.z);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    abort();
}

} // namespace cuda_on_cpu
