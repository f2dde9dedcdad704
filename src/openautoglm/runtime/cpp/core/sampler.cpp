#include "core/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace autoglm {

namespace {

constexpr int kBuckets = 1024;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kFar = 20;  // ids whose probability is below e^-20 of the largest share the last bucket

// What is kept: logits of at least `least`; of those equal to it not the last `surplus`.
struct Bound {
    float least;
    int64_t surplus;
};

// A row on its way: logits, weights e^((logit - peak) / temperature), zero where an id is out of the game.
struct Row {
    const float* logits;
    float* weights;
    int count;
    float peak, slope;
    Candidate* candidates;  // [count]
    double* buckets;        // [kBuckets]
    double* blocks;         // [count / kSumBlock + 1]
};

// The bound that keeps the fewest of the largest candidates whose measure (their number, or their mass) reaches `goal`.
template <class Measure>
Bound bound_among(Candidate* first, Candidate* last, double goal, const Measure& measure) {
    Bound bound{-kInfinity, 0};  // where rounding keeps the goal out of reach all are kept
    while (first < last) {
        const float a = first->logit, b = first[(last - first) / 2].logit, c = last[-1].logit;
        const float pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
        Candidate* above = std::partition(first, last, [&](const Candidate& x) { return x.logit > pivot; });
        Candidate* equal = std::partition(above, last, [&](const Candidate& x) { return x.logit == pivot; });
        double larger = 0;
        for (Candidate* at = first; at < above; ++at) larger += measure(*at);
        if (larger >= goal) {
            last = above;
            continue;
        }
        const int64_t equals = equal - above;
        const double each = measure(*above);
        bound.least = pivot;
        if (larger + each * static_cast<double>(equals) >= goal) {
            int64_t needed = std::clamp(static_cast<int64_t>((goal - larger) / each), int64_t{1}, equals);
            while (needed < equals && larger + each * static_cast<double>(needed) < goal) ++needed;
            return {pivot, equals - needed};
        }
        goal -= larger + each * static_cast<double>(equals);
        first = equal;
    }
    return bound;
}

// The bound of the fewest of the largest whose number (MASS: whose share of the mass) reaches `goal`: first the bucket
// of logits in which it lies, then the place among its ids.
template <bool MASS> Bound find_bound(const Kernels& kernels, const Row& row, double goal) {
    const float scale = kBuckets * row.slope / kFar;
    std::fill(row.buckets, row.buckets + kBuckets, 0.);
    kernels.tally(row.logits, MASS ? row.weights : nullptr, row.count, row.peak, scale, kBuckets, row.buckets);
    if (MASS) goal *= std::accumulate(row.buckets, row.buckets + kBuckets, 0.);
    int bucket = 0;
    while (bucket < kBuckets && row.buckets[bucket] < goal) goal -= row.buckets[bucket++];
    if (bucket == kBuckets) return {-kInfinity, 0};  // all together do not reach it
    const int found = kernels.collect(row.logits, row.weights, row.count, row.peak, scale, kBuckets, bucket,
                                      row.candidates);
    Candidate *first = row.candidates, *last = first + found;
    if (!MASS) return bound_among(first, last, goal, [](const Candidate&) { return 1.; });
    last = std::remove_if(first, last, [](const Candidate& x) { return x.weight == 0; });
    return bound_among(first, last, goal, [](const Candidate& x) { return double{x.weight}; });
}

// Take all ids out that the bound does not keep.
void apply(const Kernels& kernels, const Row& row, Bound bound) {
    kernels.clear_below(row.logits, bound.least, row.count, row.weights);
    for (int i = row.count - 1; i >= 0 && bound.surplus > 0; --i)
        if (row.logits[i] == bound.least && row.weights[i] > 0) {
            row.weights[i] = 0;
            --bound.surplus;
        }
}

// The first id whose cumulative weight exceeds `uniform` of the whole; block after block, then within one.
int draw(const Kernels& kernels, const Row& row, double uniform) {
    const int blocks = (row.count + kSumBlock - 1) / kSumBlock;
    kernels.sum_blocks(row.weights, row.count, row.blocks);
    const double total = std::accumulate(row.blocks, row.blocks + blocks, 0.);
    const double goal = uniform * total;
    double reached = 0;
    int id = -1;
    for (int b = 0; b < blocks; ++b) {
        if (row.blocks[b] == 0) continue;
        if (reached + row.blocks[b] <= goal && reached + row.blocks[b] < total) {
            reached += row.blocks[b];
            continue;
        }
        double within = reached;
        for (int i = b * kSumBlock; i < std::min(row.count, (b + 1) * kSumBlock); ++i) {
            if (row.weights[i] == 0) continue;
            id = i;  // the last of its block, should rounding pass them all
            within += row.weights[i];
            if (within > goal) return id;
        }
        reached += row.blocks[b];
    }
    return id;
}

void sample_row(const Kernels& kernels, const SampleArgs& args, int r, Row row) {
    row.logits = args.logits[r];
    args.ids[r] = -1;
    args.logprobs[r] = -kInfinity;
    int id = kernels.argmax(row.logits, row.count);
    if (id < 0 || !std::isfinite(row.logits[id])) return;
    row.peak = row.logits[id];
    const float temperature = args.temperature[r];
    if (temperature > 0) {
        row.slope = std::min(1 / temperature, 1e30f);
        kernels.exponentials(row.logits, row.peak, row.slope, row.count, row.weights);
        if (args.top_k[r] > 0 && args.top_k[r] < row.count)
            apply(kernels, row, find_bound<false>(kernels, row, args.top_k[r]));
        if (args.top_p[r] < 1) apply(kernels, row, find_bound<true>(kernels, row, args.top_p[r]));
        if (args.min_p[r] > 0) kernels.clear_below(row.weights, args.min_p[r], row.count, row.weights);
        id = draw(kernels, row, args.uniforms[r]);
    }
    const double total = kernels.exponentials(row.logits, row.peak, 1, row.count, nullptr);
    args.ids[r] = id;
    args.logprobs[r] = static_cast<float>(static_cast<double>(row.logits[id]) - row.peak - std::log(total));
}

size_t to_line(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

size_t sampler_scratch(int vocabulary) {
    const size_t count = static_cast<size_t>(vocabulary);
    return to_line(sizeof(float) * count) + to_line(sizeof(Candidate) * count) + sizeof(double) * kBuckets +
           to_line(sizeof(double) * (count / kSumBlock + 1));
}

void sample(const Member& member, const SampleArgs& args, std::atomic<int64_t>& next) {
    const size_t count = static_cast<size_t>(args.vocabulary);
    uint8_t* at = member.scratch.own<uint8_t>(member.index);
    Row row{};
    row.count = args.vocabulary;
    row.weights = reinterpret_cast<float*>(at);
    row.candidates = reinterpret_cast<Candidate*>(at += to_line(sizeof(float) * count));
    row.buckets = reinterpret_cast<double*>(at += to_line(sizeof(Candidate) * count));
    row.blocks = row.buckets + kBuckets;
    for (int64_t r; (r = next.fetch_add(1, std::memory_order_relaxed)) < args.rows;)
        sample_row(member.kernels, args, static_cast<int>(r), row);
}

}  // namespace autoglm
