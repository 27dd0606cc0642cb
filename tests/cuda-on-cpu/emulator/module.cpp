#include "module.h"

#include <dirent.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <sstream>

namespace cuda_on_cpu {
namespace {

const size_t DEFAULT_SHARED = 48 * 1024; // more has to be asked for

std::map<std::string, Kernel> &kernels() {
    static auto *map = new std::map<std::string, Kernel>;
    return *map;
}

// Bytes of a PTX type such as ".u64" or ".b8".
size_t type_bytes(const std::string &type) { return strtoul(type.c_str() + 2, nullptr, 10) / 8; }

// Bytes of a declaration ".align 4 .b8 name[128]" or ".u64 name", without what stands before.
size_t declared_bytes(const std::string &declaration) {
    std::istringstream words(declaration);
    std::string word;
    size_t bytes = 0;
    while (words >> word) {
        if (word == ".align") words >> word;
        else if (word[0] == '.' && word.size() > 2 && strchr("bfsu", word[1]) && isdigit(word[2])) bytes = type_bytes(word);
        else if (size_t bracket = word.find('['); bracket != std::string::npos)
            bytes *= strtoul(word.c_str() + bracket + 1, nullptr, 10); // "name[]" is dynamic: 0 bytes
    }
    return bytes;
}

Entry parse_entry(std::istream &lines) {
    Entry entry;
    std::string line;
    int depth = 0;
    while (std::getline(lines, line)) {
        size_t at;
        if (depth == 0 && (at = line.find(".param ")) != std::string::npos)
            entry.parameter_sizes.push_back(declared_bytes(line.substr(at + 7)));
        else if (depth == 0 && (at = line.find(".maxntid ")) != std::string::npos) {
            entry.max_threads = 1;
            for (const char *next = line.c_str() + at + 8; *next == ' ' || *next == ','; ++next) {
                char *end;
                entry.max_threads *= strtoul(next, &end, 10);
                next = end;
                if (*next != ',') break;
            }
        } else if (depth > 0 && (at = line.find(".shared .align")) != std::string::npos)
            entry.static_shared += declared_bytes(line.substr(at + 8));
        for (char c : line) depth += (c == '{') - (c == '}');
        if (depth == 0 && line.find('}') != std::string::npos) break;
    }
    return entry;
}

} // namespace

void register_kernel(const Kernel &kernel) {
    if (!kernels().emplace(kernel.name, kernel).second) fail("two kernels are called %s", kernel.name);
}

void load_kernel_libraries() {
    static const bool loaded = [] {
        Dl_info own;
        dladdr(reinterpret_cast<void *>(load_kernel_libraries), &own);
        std::string folder = own.dli_fname;
        folder = folder.substr(0, folder.rfind('/')) + "/kernels";
        if (DIR *directory = opendir(folder.c_str())) {
            while (dirent *file = readdir(directory)) {
                std::string path = folder + "/" + file->d_name;
                if (path.size() < 3 || path.substr(path.size() - 3) != ".so") continue;
                if (!dlopen(path.c_str(), RTLD_NOW)) fail("%s", dlerror());
            }
            closedir(directory);
        }
        return true;
    }();
    (void)loaded;
}

Module *parse_module(const char *ptx) {
    auto *module = new Module;
    std::istringstream lines(ptx);
    std::string line;
    while (std::getline(lines, line)) {
        size_t at = line.find(".entry ");
        if (at == std::string::npos || line.find("//") < at) continue;
        std::string name = line.substr(at + 7, line.find_first_of("( \t{", at + 7) - at - 7);
        module->entries[name] = parse_entry(lines);
    }
    module->has_entries = !module->entries.empty();
    return module;
}

Function *find_function(Module &module, const char *name) {
    auto known = module.functions.find(name);
    if (known != module.functions.end()) return known->second.get();
    auto entry = module.entries.find(name);
    if (module.has_entries && entry == module.entries.end()) return nullptr;
    auto kernel = kernels().find(name);
    if (kernel == kernels().end()) {
        fprintf(stderr, "cuda-on-cpu: kernel %s is in no source that the emulator was built with\n", name);
        return nullptr;
    }
    auto function = std::make_unique<Function>();
    function->kernel = &kernel->second;
    function->max_dynamic_shared = DEFAULT_SHARED;
    if (module.has_entries) {
        function->entry = entry->second;
        const auto &sizes = function->entry.parameter_sizes;
        bool same = sizes.size() == kernel->second.parameters;
        for (size_t i = 0; same && i < sizes.size(); ++i) same = sizes[i] == kernel->second.parameter_sizes[i];
        if (!same) fail("kernel %s: the parameters of its PTX are not those of its source; compile the PTX again", name);
    }
    return (module.functions[name] = std::move(function)).get();
}

} // namespace cuda_on_cpu
