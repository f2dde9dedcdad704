// A model ready to step, and what it takes of memory. Everything that grows with a request is allocated when it is
// loaded; with a limit the address space is closed behind it, so that the process cannot take more, whatever happens.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/program.h"
#include "core/sampler.h"
#include "manifest.h"
#include "mapping.h"
#include "options.h"
#include "tokenizer.h"

namespace autoglm::edge {

// Bytes of address space. What is mapped or allocated counts whole, whether it was touched or not.
struct Account {
    size_t process = 0;      // program, stacks of its threads, the manifest's lists, what the C library keeps
    size_t weights = 0;      // the mapped file, or its copy
    size_t tables = 0;       // of the tokenizer
    size_t cache = 0;        // keys and values of `context` tokens
    size_t activations = 0;  // values and work space of a step, logits, rotary tables
    size_t work = 0;         // texts, ids, JSON, requests
    int context = 0;
    size_t total() const { return process + weights + tables + cache + activations + work; }
    std::string text() const;
    std::string json() const;
};

class Model {
public:
    // Throws Fault: the folder is damaged, or the limit too small; it says what would fit.
    explicit Model(const Options& options);

    const Manifest& manifest() const { return manifest_; }
    const Account& account() const { return account_; }
    Tokenizer& tokenizer() { return *tokenizer_; }
    int context() const { return account_.context; }
    int threads() const { return team_->size(); }
    const char* path() const { return path_; }  // of instructions

    // The ids' keys and values are written from `start` on; logits of the last one, if `wanted`.
    void step(const int32_t* ids, int count, int start, bool wanted);
    // An id for these logits. Throws Fault where they have no finite largest.
    int32_t choose(const Sampling& sampling, double uniform);

private:
    std::unique_ptr<Program> make_program(Cache& cache, int positions) const;
    const uint8_t* bytes_of(size_t item, size_t first, size_t bytes) const;
    void check_items() const;
    Account weigh(size_t before, int context) const;
    int fit(const Options& options, size_t before) const;
    void allocate(const Options& options);
    void hold(const Options& options) const;

    Manifest manifest_;
    std::string folder_;
    Mapping file_;
    Memory copy_;
    const uint8_t* weights_ = nullptr;
    std::unique_ptr<Tokenizer> tokenizer_;
    std::unique_ptr<Team> team_;
    const Kernels* kernels_ = nullptr;
    const char* path_ = "";
    std::unique_ptr<Cache> cache_;
    std::unique_ptr<Program> program_;
    size_t fixed_ = 0;       // bytes of a program without its rotary tables
    size_t lists_ = 0;       // of a program's calls
    size_t token_cache_ = 0, token_tables_ = 0;
    int width_ = 0;          // of the logits
    Memory logits_;
    Scratch scratch_;        // of sampling
    std::vector<int32_t> pages_, positions_;
    Account account_;
};

constexpr int kMostContext = 4096;  // tokens, where nobody asks for another number
size_t text_bytes(int context);     // most bytes of a prompt
size_t work_bytes(int context);     // what requests take

}  // namespace autoglm::edge
