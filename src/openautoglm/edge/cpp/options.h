// What the program is told: the words behind its name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace autoglm::edge {

// How one answer is generated.
struct Sampling {
    int max_tokens = 0;  // 0: as the model's card recommends
    float temperature = 0;
    int top_k = 0;
    float top_p = 1;
    float min_p = 0;
    uint64_t seed = 0;

    void check() const;  // throws Fault
};

struct Options {
    std::string model;  // the folder; empty: the program's own
    Sampling sampling;
    int threads = 0;          // 0: one for each 4 MB of weights, at most one for each processor
    int context = 0;          // tokens; 0: as many as the model has, at most 4096, and fit into the limit
    size_t memory_limit = 0;  // bytes; 0: none
    bool copy = false;        // weights into memory, checked; else the file is mapped
    std::string tokens;        // encode or decode lines in place of answering them
    bool json = false, stream = false, stats = false, info = false, verbose = false, help = false;
    int port = -1;
};

Options read_options(int count, char** words);  // throws Fault
extern const char kHelp[];

}  // namespace autoglm::edge
