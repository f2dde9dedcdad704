#include "options.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "fault.h"

namespace autoglm::edge {

const char kHelp[] =
    "autoglm-edge: answers on standard output, one line for each line of standard input\n"
    "A line in is plain text, or a JSON object with `prompt` and options of its own.\n"
    "\n"
    "  --model DIR            the folder with manifest.txt; by default that of this program\n"
    "  --max-tokens N         most tokens of an answer\n"
    "  --temperature T        0 (default): the likeliest token\n"
    "  --top-k N, --top-p P, --min-p P, --seed N   of sampling\n"
    "  --json                 answers as JSON objects; plain lines write a line break as \\n\n"
    "  --stream               write each piece of an answer as soon as it is there\n"
    "  --memory-limit SIZE    e.g. 32MB: all that the process may map; a longer context is cut, else it is refused\n"
    "  --context N            most tokens of a prompt and its answer\n"
    "  --threads N            that compute; by default one for each 4 MB of weights, as far as there are processors\n"
    "  --load map|copy        weights stay in the mapped file, or are read into memory and checked\n"
    "  --tokens encode|decode what the tokenizer makes of lines of JSON texts, or of ids with commas\n"
    "  --info                 say what the model takes, and end\n"
    "  --stats                say on standard error how fast each answer came\n"
#ifdef AUTOGLM_EDGE_HTTP
    "  --http PORT            serve POST /v1/completions and GET /healthz on 127.0.0.1; 0: a free port\n"
#endif
#ifdef AUTOGLM_EDGE_LOG
    "  --verbose              say on standard error what is done\n"
#endif
    "  --help\n";

namespace {

double real(const std::string& name, const char* text) {
    char* end = nullptr;
    const double value = std::strtod(text, &end);
    expect(end != text && *end == '\0' && std::isfinite(value), name + " takes a number, not '" + text + "'");
    return value;
}

int64_t whole(const std::string& name, const char* text, int64_t least, int64_t most) {
    char* end = nullptr;
    errno = 0;
    const int64_t value = std::strtoll(text, &end, 10);
    expect(end != text && *end == '\0' && errno == 0 && value >= least && value <= most,
           name + " takes a whole number from " + std::to_string(least) + " to " + std::to_string(most) + ", not '" +
               text + "'");
    return value;
}

// 32MB, 64MiB, 1.5GB, 33554432
size_t size_of(const std::string& name, const char* text) {
    char* end = nullptr;
    double value = std::strtod(text, &end);
    const char* found = *end != '\0' ? std::strchr("kKmMgG", *end) : nullptr;
    if (found != nullptr && end != text) {
        ++end;
        const double step = *end == 'i' ? 1024 : 1000;
        if (*end == 'i') ++end;
        for (int i = 0; i <= (found - std::strchr("kKmMgG", 'k')) / 2; ++i) value *= step;
    }
    if (*end == 'B' || *end == 'b') ++end;
    expect(end != text && *end == '\0' && std::isfinite(value) && value >= 1 && value < 1e15,
           name + " takes a size such as 32MB or 64MiB, not '" + text + "'");
    return static_cast<size_t>(value);
}

bool take_flag(Options& to, const std::string& name) {
    if (name == "--json") return to.json = true;
    if (name == "--stream") return to.stream = true;
    if (name == "--stats") return to.stats = true;
    if (name == "--info") return to.info = true;
#ifdef AUTOGLM_EDGE_LOG
    if (name == "--verbose") return to.verbose = true;
#endif
    return (name == "--help" || name == "-h") && (to.help = true);
}

void take_value(Options& to, const std::string& name, const char* value) {
    Sampling& sampling = to.sampling;
    if (name == "--model") to.model = value;
    else if (name == "--max-tokens") sampling.max_tokens = static_cast<int>(whole(name, value, 1, 1 << 24));
    else if (name == "--temperature") sampling.temperature = static_cast<float>(real(name, value));
    else if (name == "--top-k") sampling.top_k = static_cast<int>(whole(name, value, 0, 1 << 24));
    else if (name == "--top-p") sampling.top_p = static_cast<float>(real(name, value));
    else if (name == "--min-p") sampling.min_p = static_cast<float>(real(name, value));
    else if (name == "--seed") sampling.seed = static_cast<uint64_t>(whole(name, value, 0, INT64_MAX));
    else if (name == "--threads") to.threads = static_cast<int>(whole(name, value, 1, 1024));
    else if (name == "--context") to.context = static_cast<int>(whole(name, value, 16, 1 << 24));
    else if (name == "--memory-limit") to.memory_limit = size_of(name, value);
    else if (name == "--load") {
        to.copy = std::strcmp(value, "copy") == 0;
        expect(to.copy || std::strcmp(value, "map") == 0, "--load is map or copy");
    } else if (name == "--tokens") {
        to.tokens = value;
        expect(to.tokens == "encode" || to.tokens == "decode", "--tokens is encode or decode");
    }
#ifdef AUTOGLM_EDGE_HTTP
    else if (name == "--http") to.port = static_cast<int>(whole(name, value, 0, 65535));
#endif
    else throw Fault("there is no option " + name + " in this program; --help lists them");
}

}  // namespace

void Sampling::check() const {
    expect(temperature >= 0 && temperature <= 100, "temperature lies between 0 and 100");
    expect(top_p > 0 && top_p <= 1, "top_p lies above 0, at most 1");
    expect(min_p >= 0 && min_p <= 1, "min_p lies between 0 and 1");
}

Options read_options(int count, char** words) {
    Options options;
    for (int i = 1; i < count; ++i) {
        std::string name = words[i];
        const size_t equals = name.find('=');
        if (take_flag(options, name)) continue;
        if (equals != std::string::npos) {
            take_value(options, name.substr(0, equals), words[i] + equals + 1);
            continue;
        }
        expect(name.rfind("--", 0) == 0, "'" + name + "' is no option; prompts come from standard input");
        if (i + 1 == count) take_value(options, name, "");
        else take_value(options, name, words[++i]);
    }
    options.sampling.check();
    return options;
}

}  // namespace autoglm::edge
