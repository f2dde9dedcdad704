#include "model.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fault.h"
#include "log.h"

namespace autoglm::edge {

namespace {

constexpr size_t kStack = 512 << 10;    // of each thread
constexpr int kLeastContext = 64;       // tokens
constexpr size_t kSlack = 128 << 10;    // what the C library takes for itself, and gaps between pieces of the heap
constexpr size_t kThreadBytes = 4 << 20; // weights that keep a thread busy longer than it waits for the others
constexpr char kAgain[] = "; make the folder again with autoglm edge";

CacheFormat cache_format(const std::string& name) {
    if (name == "fp32") return CacheFormat::fp32;
    if (name == "bf16") return CacheFormat::bf16;
    expect(name == "int8", "the cache's format '" + name + "' is unknown");
    return CacheFormat::int8;
}

// What a block of the runtime takes: whole pages, from 16 MiB on large ones (core/memory.cpp).
size_t block(size_t bytes) {
    const size_t page = bytes < (size_t{16} << 20) ? 4096 : size_t{2} << 20;
    return (bytes + page - 1) / page * page;
}

int processors() {
    cpu_set_t set;
    CPU_ZERO(&set);
    return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

std::string own_folder() {
    char path[4096];
    const ssize_t count = readlink("/proc/self/exe", path, sizeof path);
    const std::string whole = count > 0 ? std::string(path, static_cast<size_t>(count)) : "./autoglm-edge";
    return whole.substr(0, whole.rfind('/'));
}

// One arena for all of malloc, which takes its memory in one piece and keeps it.
void steady_heap() {
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (pthread_attr_setstacksize(&attributes, kStack) == 0) (void)pthread_setattr_default_np(&attributes);
    pthread_attr_destroy(&attributes);
#endif
}

// Bytes that malloc has given out.
size_t heap_bytes() {
#ifdef __GLIBC__
    return mallinfo2().uordblks;
#else
    return 0;
#endif
}

std::string amount(size_t bytes) { return std::to_string(bytes); }

}  // namespace

size_t text_bytes(int context) {
    return std::clamp<size_t>(16 * static_cast<size_t>(context), 4 << 10, 1 << 20);
}

// A request's body, its JSON, prompt, ids and answer, and the tokenizer's work: see Tokenizer::reserve.
size_t work_bytes(int context) {
    return 64 * text_bytes(context) + 64 * static_cast<size_t>(context) + (256 << 10);
}

std::string Account::text() const {
    return "program and stacks " + amount(process) + ", weights " + amount(weights) + ", tokenizer " + amount(tables) +
           ", cache " + amount(cache) + " of " + std::to_string(context) + " tokens, activations " + amount(activations) +
           ", requests " + amount(work);
}

std::string Account::json() const {
    return "{\"process\": " + amount(process) + ", \"weights\": " + amount(weights) + ", \"tables\": " + amount(tables) +
           ", \"cache\": " + amount(cache) + ", \"activations\": " + amount(activations) + ", \"work\": " + amount(work) +
           ", \"total\": " + amount(total()) + ", \"context\": " + std::to_string(context) + "}";
}

Model::Model(const Options& options) : folder_(options.model.empty() ? own_folder() : options.model) {
    steady_heap();
    manifest_ = read_manifest(folder_ + "/manifest.txt");
    const size_t before = address_space();
    try {
        const Isa isa = choose_isa("");
        kernels_ = &kernels_for(isa);
        path_ = name_of(isa);
        tokenizer_ = std::make_unique<Tokenizer>(folder_ + "/" + manifest_.tokenizer);
        file_ = Mapping(folder_ + "/" + manifest_.weights);
        const auto worth = static_cast<int>(std::min<size_t>(file_.size() / kThreadBytes, 1023)) + 1;
        team_ = std::make_unique<Team>(options.threads > 0 ? options.threads : std::min(worth, processors()));
        for (const Item& item : manifest_.items)
            expect(item.offset <= file_.size() && item.bytes <= file_.size() - item.offset,
                   manifest_.weights + " is cut short" + kAgain);
        Cache least(manifest_.layers, 1, manifest_.page_size, manifest_.kv_heads, manifest_.head_dim,
                    cache_format(manifest_.cache));
        token_cache_ = least.bytes() / static_cast<size_t>(manifest_.page_size);
        const size_t heap = heap_bytes();
        const auto probe = make_program(least, manifest_.page_size);
        lists_ = heap_bytes() - heap + kSlack;
        token_tables_ = probe->table_bytes() / static_cast<size_t>(manifest_.page_size);
        width_ = probe->logits_width();
        expect(width_ >= manifest_.vocabulary, "the model has fewer logits than its tokenizer has ids");
        fixed_ = block(probe->arena_bytes()) + probe->scratch_bytes() + 4 * 4096 + block(sizeof(float) * width_);
    } catch (const std::invalid_argument& error) {
        throw Fault(folder_ + "/manifest.txt: " + error.what() + kAgain);
    }
    account_ = weigh(before, fit(options, before));
    allocate(options);
    hold(options);
}

std::unique_ptr<Program> Model::make_program(Cache& cache, int positions) const {
    auto program = std::make_unique<Program>(*team_, *kernels_, cache, manifest_.rows, 1, positions, manifest_.arena);
    for (const Weight& weight : manifest_.weight_list)
        program->declare_weight(shape_packed(weight.format, !weight.symmetric, weight.rows, weight.columns, weight.group));
    for (const PlainRows& rows : manifest_.row_list) program->declare_tensor(rows.format, rows.rows, rows.columns);
    for (const Turning& table : manifest_.tables) program->declare_table(table.theta, table.dims);
    for (const Call& call : manifest_.calls) program->add(call);
    return program;
}

const uint8_t* Model::bytes_of(size_t number, size_t first, size_t bytes) const {
    expect(number < manifest_.items.size(), "the manifest names a weight that it does not have" + std::string(kAgain));
    const Item& item = manifest_.items[number];
    expect(first <= item.bytes && bytes <= item.bytes - first, item.name + " is too short" + kAgain);
    return weights_ + item.offset + first;
}

void Model::check_items() const {
    for (const Item& item : manifest_.items)
        expect(crc32(weights_ + item.offset, item.bytes) == item.checksum,
               manifest_.weights + ": " + item.name + " is damaged" + kAgain);
}

// What all takes with a context of so many tokens; `before`: what the process had mapped before it loaded anything.
Account Model::weigh(size_t before, int context) const {
    Account account;
    const auto tokens = static_cast<size_t>(context);
    account.context = context;
    account.process = before + lists_ + static_cast<size_t>(team_->size() - 1) * (kStack + 8192);
    account.weights = block(file_.size());
    account.tables = block(tokenizer_->bytes());
    account.cache = block(token_cache_ * tokens);
    account.activations = fixed_ + block(token_tables_ * tokens) + block(sampler_scratch(manifest_.vocabulary));
    account.work = work_bytes(context);
    return account;
}

// How many tokens of context there can be.
int Model::fit(const Options& options, size_t before) const {
    const int page = manifest_.page_size;
    const int most = manifest_.positions;
    expect(options.context <= most, "--context: the model has " + std::to_string(most) + " positions");
    const int wanted = options.context > 0 ? options.context : std::min(most, kMostContext);
    const auto needed = [&](int context) { return weigh(before, context); };
    const size_t limit = options.memory_limit;
    if (limit == 0 || needed(wanted).total() <= limit) return wanted;
    int context = (options.context > 0 ? 0 : wanted) / page * page;
    while (context >= kLeastContext && needed(context).total() > limit) context -= page;
    if (context < kLeastContext) {
        int possible = wanted / page * page;
        while (possible >= kLeastContext && needed(possible).total() > limit) possible -= page;
        const Account all = needed(wanted), least = needed(std::min(kLeastContext, wanted));
        throw Fault("the limit of " + amount(limit) + " bytes is too small: " + amount(all.total()) + " are needed (" +
                    all.text() + "); " +
                    (possible >= kLeastContext ? "a context of " + std::to_string(possible) + " tokens fits"
                                               : amount(least.total()) + " is the least that will do"));
    }
    log("the context has %d tokens in place of %d: %zu bytes are the limit", context, wanted, limit);
    return context;
}

void Model::allocate(const Options& options) {
    const int context = account_.context, page = manifest_.page_size, pages = (context + page - 1) / page;
    if (options.copy) {
        copy_ = Memory(file_.size());
        const Mapping from = std::move(file_);
        std::memcpy(copy_.data(), from.data(), from.size());
    }
    weights_ = options.copy ? copy_.data() : file_.data();
    if (options.copy) check_items();
    cache_ = std::make_unique<Cache>(manifest_.layers, pages, page, manifest_.kv_heads, manifest_.head_dim,
                                     cache_format(manifest_.cache));
    program_ = make_program(*cache_, context);
    for (size_t i = 0; i < manifest_.weight_list.size(); ++i) {
        const Weight& weight = manifest_.weight_list[i];
        program_->bind_weight(static_cast<int>(i), bytes_of(weight.item, weight.first, weight.bytes), weight.bytes);
    }
    for (size_t i = 0; i < manifest_.row_list.size(); ++i) {
        const size_t number = manifest_.row_list[i].item;
        expect(number < manifest_.items.size(), "the manifest names rows that it does not have");
        const size_t bytes = manifest_.items[number].bytes;
        program_->bind_tensor(static_cast<int>(i), bytes_of(number, 0, bytes), bytes);
    }
    manifest_.calls = {};
    logits_ = Memory(sizeof(float) * static_cast<size_t>(width_));
    scratch_.reserve(1, sampler_scratch(manifest_.vocabulary));
    pages_.resize(static_cast<size_t>(pages));
    for (int i = 0; i < pages; ++i) pages_[static_cast<size_t>(i)] = i;
    positions_.resize(static_cast<size_t>(context));
    for (int i = 0; i < context; ++i) positions_[static_cast<size_t>(i)] = i;
    tokenizer_->reserve(text_bytes(context));
    const size_t rest = work_bytes(context) - std::min(work_bytes(context), tokenizer_->reserved_bytes());
    void* spare = std::malloc(rest);  // the heap grows by it now, and gives it to requests later
    expect(spare != nullptr, "memory for requests cannot be had");
    std::free(spare);
}

// Close the address space: what is asked for beyond the limit is refused by the system.
void Model::hold(const Options& options) const {
    if (options.memory_limit == 0) return;
    const size_t used = address_space();
    expect(used <= options.memory_limit, "the process has mapped " + amount(used) + " bytes, the limit is " +
                                             amount(options.memory_limit) + "; raise it, or lower --context");
    const struct rlimit limit {options.memory_limit, options.memory_limit};
    if (setrlimit(RLIMIT_AS, &limit) != 0) throw Fault(std::string("setrlimit: ") + std::strerror(errno));
}

void Model::step(const int32_t* ids, int count, int start, bool wanted) {
    const int32_t first_rows[2] = {0, count}, length = start + count, last = count - 1;
    program_->begin({ids, positions_.data() + start, &last, count, wanted ? 1 : 0, first_rows, &length, pages_.data(), 1,
                     static_cast<int64_t>(pages_.size()), manifest_.page_size, logits_.as<float>()});
    program_->run(0, program_->size());
}

int32_t Model::choose(const Sampling& sampling, double uniform) {
    const float* logits = logits_.as<float>();
    int32_t id = -1;
    float logprob = 0;
    if (sampling.temperature > 0) {
        const int32_t top_k = sampling.top_k;
        const SampleArgs args{{logits_.as<float>(), width_}, 1, manifest_.vocabulary, &sampling.temperature, &top_k,
                              &sampling.top_p, &sampling.min_p, &uniform, &id, &logprob};
        std::atomic<int64_t> next{0};
        sample(Member{*team_, *kernels_, scratch_, 0}, args, next);
    } else {
        id = kernels_->argmax(logits, manifest_.vocabulary);
        if (id >= 0 && !(logits[id] - logits[id] == 0)) id = -1;
    }
    expect(id >= 0, "the model gave no finite logits to choose from");
    return id;
}

}  // namespace autoglm::edge
