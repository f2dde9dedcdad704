// The edge program: a model, its tokenizer and the kernels, without Python. docs/edge.md is its manual.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <new>

#include "answer.h"
#include "fault.h"
#include "lines.h"
#include "log.h"
#include "model.h"
#include "options.h"
#ifdef AUTOGLM_EDGE_HTTP
#include "http.h"
#endif

namespace {

int run(int count, char** words) {
    using namespace autoglm::edge;
    const auto begin = std::chrono::steady_clock::now();
    const Options options = read_options(count, words);
    if (options.help) return std::fputs(kHelp, stdout) < 0;
#ifdef AUTOGLM_EDGE_LOG
    talkative() = options.verbose;
#endif
    Model model(options);
    Author author(model);
    const double ready = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    log("ready after %.1f ms: %s, %d threads, %s", ready, model.path(), model.threads(), model.account().text().c_str());
    if (options.stats) std::fprintf(stderr, "{\"ready_ms\": %.3f}\n", ready);
    if (options.info) return std::printf("%s\n", model.account().json().c_str()) < 0;
    if (!options.tokens.empty()) return translate_lines(model, options.tokens == "decode"), 0;
#ifdef AUTOGLM_EDGE_HTTP
    if (options.port >= 0) return serve(model, author, options);
#endif
    return answer_lines(model, author, options) > 0 ? 1 : 0;
}

}  // namespace

int main(int count, char** words) {
    std::signal(SIGPIPE, SIG_IGN);
    try {
        return run(count, words);
    } catch (const std::bad_alloc&) {
        std::fputs("autoglm-edge: memory for the model cannot be had\n", stderr);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "autoglm-edge: %s\n", error.what());
    }
    return 2;
}
