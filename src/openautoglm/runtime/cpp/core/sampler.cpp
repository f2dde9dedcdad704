#include "core/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace autoglm {

namespace {

constexpr int kBuckets = 1024;
constexpr int kBlock = 64;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kFar = 30;  // e^-30: ids so far below the largest share the last bucket

// What is kept: logits above `least`, and the first `equals` of those equal to it.
struct Bound {
    float least;
    int64_t equals;
};

struct Candidate {
    float logit, weight;
};

struct Bucket {
    double mass;
    int64_t count;
};

// A row on its way: logits, weights e^((logit - peak) / temperature), zero where an id is out of the game.
struct Row {
    const float* logits;
    float* weights;
    int count;
    float peak, slope;
    Candidate* candidates;  // [count]
    Bucket* buckets;        // [kBuckets]
    double* blocks;         // [count / kBlock + 1]
};

// The bound that keeps the fewest of the largest candidates whose measure (their number, or their mass) reaches `goal`.
template <class Measure>
Bound bound_among(Candidate* first, Candidate* last, double goal, const Measure& measure) {
    Bound bound{last[-1].logit, last - first};
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
        bound = {pivot, equals};
        if (larger + each * static_cast<double>(equals) >= goal) {
            int64_t needed = std::clamp(static_cast<int64_t>((goal - larger) / each), int64_t{1}, equals);
            while (needed < equals && larger + each * static_cast<double>(needed) < goal) ++needed;
            bound.equals = needed;
            return bound;
        }
        goal -= larger + each * static_cast<double>(equals);
        first = equal;
    }
    return bound;  // rounding kept the goal out of reach: all are kept
}

int bucket_of(const Row& row, float logit, float scale) {
    const float at = (row.peak - logit) * scale;
    return at < kBuckets - 1 ? static_cast<int>(at) : kBuckets - 1;
}

// The bound of the fewest of the largest whose number (MASS: whose share of the mass) reaches `goal`; ids of weight 0 do
// not count. First the bucket of logits in which it lies, then the place among its ids.
template <bool MASS> Bound find_bound(const Row& row, double goal) {
    float least = row.peak;
    for (int i = 0; i < row.count; ++i)
        if (row.weights[i] > 0) least = std::min(least, row.logits[i]);
    const float span = std::min(row.peak - least, kFar / row.slope);
    if (!(span > 0) && !(row.peak > least)) least = row.peak;
    const float scale = span > 0 ? std::min(kBuckets / span, std::numeric_limits<float>::max()) : 0;
    std::fill(row.buckets, row.buckets + kBuckets, Bucket{0, 0});
    for (int i = 0; i < row.count; ++i) {
        if (!(row.weights[i] > 0)) continue;
        Bucket& bucket = row.buckets[bucket_of(row, row.logits[i], scale)];
        bucket.mass += row.weights[i];
        ++bucket.count;
    }
    if (MASS) {
        double total = 0;
        for (int b = 0; b < kBuckets; ++b) total += row.buckets[b].mass;
        goal *= total;
    }
    double before = 0;
    int crossing = 0, filled = 0;
    for (; crossing < kBuckets; ++crossing) {
        const Bucket& bucket = row.buckets[crossing];
        if (bucket.count == 0) continue;
        filled = crossing;
        const double own = MASS ? bucket.mass : static_cast<double>(bucket.count);
        if (before + own >= goal) break;
        before += own;
    }
    if (crossing == kBuckets) return {least, row.count};  // all together do not reach it
    Candidate* last = row.candidates;
    for (int i = 0; i < row.count; ++i)
        if (row.weights[i] > 0 && bucket_of(row, row.logits[i], scale) == filled)
            *last++ = {row.logits[i], row.weights[i]};
    return bound_among(row.candidates, last, goal - before, [](const Candidate& x) { return MASS ? double{x.weight} : 1.; });
}

// Take all ids out that the bound does not keep.
void apply(const Row& row, Bound bound) {
    int64_t equals = 0;
    for (int i = 0; i < row.count; ++i) {
        row.weights[i] = row.logits[i] >= bound.least ? row.weights[i] : 0;
        equals += row.logits[i] == bound.least;
    }
    for (int i = row.count - 1; equals > bound.equals; --i)
        if (row.logits[i] == bound.least) {
            row.weights[i] = 0;
            --equals;
        }
}

// The first id whose cumulative weight exceeds `uniform` of the whole; block after block, then within one.
int draw(const Row& row, double uniform) {
    const int blocks = (row.count + kBlock - 1) / kBlock;
    double total = 0;
    for (int b = 0; b < blocks; ++b) {
        double sums[4] = {0, 0, 0, 0};
        const int end = std::min(row.count, (b + 1) * kBlock);
        int i = b * kBlock;
        for (; i + 4 <= end; i += 4)
            for (int k = 0; k < 4; ++k) sums[k] += row.weights[i + k];
        for (; i < end; ++i) sums[0] += row.weights[i];
        row.blocks[b] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        total += row.blocks[b];
    }
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
        for (int i = b * kBlock; i < std::min(row.count, (b + 1) * kBlock); ++i) {
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
        if (args.top_k[r] > 0 && args.top_k[r] < row.count) apply(row, find_bound<false>(row, args.top_k[r]));
        if (args.top_p[r] < 1) apply(row, find_bound<true>(row, args.top_p[r]));
        if (args.min_p[r] > 0)
            for (int i = 0; i < row.count; ++i) row.weights[i] = row.weights[i] >= args.min_p[r] ? row.weights[i] : 0;
        id = draw(row, args.uniforms[r]);
    }
    const double total = kernels.exponentials(row.logits, row.peak, 1, row.count, nullptr);
    args.ids[r] = id;
    args.logprobs[r] = static_cast<float>(static_cast<double>(row.logits[id]) - row.peak - std::log(total));
}

size_t to_line(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

size_t sampler_scratch(int vocabulary) {
    const size_t count = static_cast<size_t>(vocabulary);
    return to_line(sizeof(float) * count) + to_line(sizeof(Candidate) * count) + sizeof(Bucket) * kBuckets +
           to_line(sizeof(double) * (count / kBlock + 1));
}

void sample(const Member& member, const SampleArgs& args, std::atomic<int64_t>& next) {
    const size_t count = static_cast<size_t>(args.vocabulary);
    uint8_t* at = member.scratch.own<uint8_t>(member.index);
    Row row{};
    row.count = args.vocabulary;
    row.weights = reinterpret_cast<float*>(at);
    row.candidates = reinterpret_cast<Candidate*>(at += to_line(sizeof(float) * count));
    row.buckets = reinterpret_cast<Bucket*>(at += to_line(sizeof(Candidate) * count));
    row.blocks = reinterpret_cast<double*>(at + sizeof(Bucket) * kBuckets);
    for (int64_t r; (r = next.fetch_add(1, std::memory_order_relaxed)) < args.rows;)
        sample_row(member.kernels, args, static_cast<int>(r), row);
}

}  // namespace autoglm
