// Stacks to switch between, so that the threads of a block can wait for each other on one thread of the host.
#pragma once

#include <cstddef>

namespace cuda_on_cpu {

class Fiber {
  public:
    explicit Fiber(void (*body)());
    Fiber(const Fiber &) = delete;
    // From the scheduler: runs the fiber until it pauses.
    void resume();
    // From a fiber: goes back to the caller that resumed it.
    static void pause();

  private:
    void *context;
    void *stack;
};

} // namespace cuda_on_cpu
