// Modules and functions: names and limits from PTX text, code from the kernel libraries.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime.h"

namespace cuda_on_cpu {

// What the PTX says of one kernel.
struct Entry {
    std::vector<size_t> parameter_sizes;
    size_t max_threads = 0; // of __launch_bounds__; 0 without
    size_t static_shared = 0;
};

struct Function {
    const Kernel *kernel;
    Entry entry;
    size_t max_dynamic_shared;
};

struct Module {
    bool has_entries; // false for PTX without any kernel: the names are then taken from the libraries alone
    std::map<std::string, Entry> entries;
    std::map<std::string, std::unique_ptr<Function>> functions;
};

// Loads the kernel libraries that lie beside the driver, once.
void load_kernel_libraries();
Module *parse_module(const char *ptx);
// Null if the module has no such kernel.
Function *find_function(Module &module, const char *name);

} // namespace cuda_on_cpu
