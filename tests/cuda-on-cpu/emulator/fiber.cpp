#include "fiber.h"

#include <sys/mman.h>

#include "runtime.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace cuda_on_cpu {
namespace {

const size_t STACK_BYTES = 256 * 1024; // touched pages only are backed by memory

void (*fiber_body)();
Fiber *running = nullptr;
void *scheduler_context;

#ifdef __x86_64__
// Pushes the registers that a call must keep, stores the stack pointer, takes the other one and pops.
extern "C" void cuda_on_cpu_switch(void **save, void *load);
asm(R"(
.text
.globl cuda_on_cpu_switch
.hidden cuda_on_cpu_switch
.type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");

void switch_context(void **save, void *load) { cuda_on_cpu_switch(save, load); }

void *new_context(void *stack, void (*entry)()) {
    auto **top = reinterpret_cast<void **>(static_cast<char *>(stack) + STACK_BYTES);
    *--top = nullptr; // the return address of entry, which never returns; keeps the alignment of a call
    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr; // the saved registers
    return top;
}
#else
void switch_context(void **save, void *load) {
    if (!*save) *save = new ucontext_t;
    swapcontext(static_cast<ucontext_t *>(*save), static_cast<ucontext_t *>(load));
}

void *new_context(void *stack, void (*entry)()) {
    auto *context = new ucontext_t;
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = STACK_BYTES;
    makecontext(context, entry, 0);
    return context;
}
#endif

#ifdef __SANITIZE_ADDRESS__
// The sanitizer is told of every switch, else it takes the other stack for a bad pointer.
const void *scheduler_stack;
size_t scheduler_stack_bytes;
void before_switch(void **fake, const void *stack, size_t bytes) {
    __sanitizer_start_switch_fiber(fake, stack, bytes);
}
void after_switch(void *fake, bool in_fiber) {
    __sanitizer_finish_switch_fiber(fake, in_fiber ? &scheduler_stack : nullptr,
                                    in_fiber ? &scheduler_stack_bytes : nullptr);
}
#else
const void *scheduler_stack = nullptr;
const size_t scheduler_stack_bytes = 0;
void before_switch(void **, const void *, size_t) {}
void after_switch(void *, bool) {}
#endif

void enter() {
    after_switch(nullptr, true);
    fiber_body();
    fail("a fiber's body returned");
}

} // namespace

Fiber::Fiber(void (*body)()) {
    fiber_body = body;
    stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) fail("no memory for the stack of a thread");
    context = new_context(stack, enter);
}

void Fiber::resume() {
    running = this;
    void *fake = nullptr;
    before_switch(&fake, stack, STACK_BYTES);
    switch_context(&scheduler_context, context);
    after_switch(fake, false);
    running = nullptr;
}

void Fiber::pause() {
    void *fake = nullptr;
    before_switch(&fake, scheduler_stack, scheduler_stack_bytes);
    switch_context(&running->context, scheduler_context);
    after_switch(fake, true);
}

} // namespace cuda_on_cpu
