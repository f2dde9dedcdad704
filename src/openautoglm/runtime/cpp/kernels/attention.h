// Attention with a running maximum and sum (Milakov and Gimelshein, arXiv 1805.02867), so that a sequence of any length
// needs no more scratch than one block of scores. Included inside the namespace of a path.
//
// A query is one head of one row; the queries of a tile that share a kv head go together over its tokens, block after
// block. What a query gets depends neither on the queries that go with it nor on the size of pages.

inline uint16_t to_bf16(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FC0;
    return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// What a format of the cache stores, and how it is read.
struct CachedFp32 {
    using Value = float;
    static constexpr bool scaled = false;
    static Vec load_at(const Value* p) { return load(p); }
    static Value from(float x) { return x; }
};
struct CachedBf16 {
    using Value = uint16_t;
    static constexpr bool scaled = false;
    static Vec load_at(const Value* p) { return load_bf16(p); }
    static Value from(float x) { return to_bf16(x); }
};
struct CachedInt8 {
    using Value = int8_t;
    static constexpr bool scaled = true;
    static Vec load_at(const Value* p) { return load_int8(p); }
};

template <class F>
void write_cache_as(const CacheView& cache, int64_t block, const float* key, const float* value, int offset) {
    using Value = typename F::Value;
    const int dims = cache.head_dim, token = offset % kSegment;
    const int64_t first = (block * cache.page_size + offset - token) * dims;  // of the token's segment
    Value* keys = static_cast<Value*>(cache.keys) + first + token;
    Value* values = static_cast<Value*>(cache.values) + first + token * kSegment;
    if constexpr (F::scaled) {
        int8_t rounded[kMostDims];
        cache.key_scales[block * cache.page_size + offset] = round_to_int8(key, dims, rounded);
        for (int d = 0; d < dims; ++d) keys[d * kSegment] = rounded[d];
        cache.value_scales[block * cache.page_size + offset] = round_to_int8(value, dims, rounded);
        for (int d = 0; d < dims; d += kSegment) __builtin_memcpy(values + d * kSegment, rounded + d, kSegment);
    } else {
        for (int d = 0; d < dims; ++d) keys[d * kSegment] = F::from(key[d]);
        for (int d = 0; d < dims; d += kSegment)
            for (int i = 0; i < kSegment; ++i) values[d * kSegment + i] = F::from(value[d + i]);
    }
}

void write_cache(const CacheView& cache, int head, const float* key, const float* value, int page, int offset) {
    const int64_t block = static_cast<int64_t>(page) * cache.kv_heads + head;
    if (cache.format == CacheFormat::int8) write_cache_as<CachedInt8>(cache, block, key, value, offset);
    else if (cache.format == CacheFormat::bf16) write_cache_as<CachedBf16>(cache, block, key, value, offset);
    else write_cache_as<CachedFp32>(cache, block, key, value, offset);
}

// The queries of one tile and one kv head.
struct Queries {
    const AttentionArgs* args;
    const Tile* tile;
    int kv_head, shared, count;  // shared: heads of a row that use the kv head; count: queries
    float *most, *total, *scores;
    float *wide_keys, *wide_values;  // room for a block in fp32

    int64_t column(int q) const {
        return static_cast<int64_t>(kv_head * shared + q % shared) * args->cache.head_dim;
    }
    int64_t row(int q) const { return tile->first_row + q / shared; }
    const float* query(int q) const { return args->queries + row(q) * args->query_stride + column(q); }
    float* out(int q) const { return args->out + row(q) * args->out_stride + column(q); }
    float* score(int q) const { return scores + q * kBlockTokens; }
    int position(int q) const { return tile->position + q / shared; }
};

// Neighbouring tokens as a tile reads them: segments in the format of the cache, or widened to fp32.
template <class F> struct Tokens {
    const typename F::Value *keys[kBlockTokens / kSegment], *values[kBlockTokens / kSegment];
    const float *key_scales[kBlockTokens / kSegment], *value_scales[kBlockTokens / kSegment];  // int8 only
    int start, tokens, segments;  // position of the first token; how many tokens, and segments of them
};

// Scores of N queries from `q` on with the tokens of a block; those beyond its last token mean nothing.
template <int N, class F, bool SCALED> inline void score_block(const Queries& all, int q, const Tokens<F>& block) {
    constexpr int wide = kSegment / Vec::lanes;
    const int dims = all.args->cache.head_dim;
    const float* queries[N];
    for (int n = 0; n < N; ++n) queries[n] = all.query(q + n);
    for (int s = 0; s < block.segments; ++s) {
        Vec sums[N][wide];
        for (int n = 0; n < N; ++n)
            for (int w = 0; w < wide; ++w) sums[n][w] = zero();
        const typename F::Value* at = block.keys[s];
        for (int d = 0; d < dims; ++d, at += kSegment) {
            Vec keys[wide];
            for (int w = 0; w < wide; ++w) keys[w] = F::load_at(at + w * Vec::lanes);
            for (int n = 0; n < N; ++n) {
                const Vec query = spread(queries[n][d]);
                for (int w = 0; w < wide; ++w) sums[n][w] = muladd(query, keys[w], sums[n][w]);
            }
        }
        for (int w = 0; w < wide; ++w) {
            Vec factor = spread(all.args->scale);
            if constexpr (SCALED) factor = mul(factor, load(block.key_scales[s] + w * Vec::lanes));
            for (int n = 0; n < N; ++n)
                store(all.score(q + n) + s * kSegment + w * Vec::lanes, mul(sums[n][w], factor));
        }
    }
}

// Scores of the first `seen` of `padded` tokens to weights, the others to zero; returns the factor for what was summed
// up before.
inline float weigh_block(const Queries& all, int q, int padded, int seen) {
    float* scores = all.score(q);
    if (seen <= 0) {
        for (int t = 0; t < padded; ++t) scores[t] = 0;
        return 1.f;
    }
    for (int t = seen; t < padded; ++t) scores[t] = -__builtin_inff();
    Vec most = spread(all.most[q]);
    for (int t = 0; t < padded; t += Vec::lanes) most = larger(most, load(scores + t));
    const float peak = largest(most);
    const Vec top = spread(peak), least = spread(kLeastExponent);
    Vec total = zero();
    for (int t = 0; t < padded; t += Vec::lanes) {
        const Vec power = sub(load(scores + t), top);
        const Vec weight = unless_below(power, least, exponential(power));
        store(scores + t, weight);
        total = add(total, weight);
    }
    const float factor = first(exponential(spread(all.most[q] - peak)));
    all.most[q] = peak;
    all.total[q] = all.total[q] * factor + sum(total);
    return factor;
}

// out = out * factor + the weighted values of a block, for N queries, sixteen dimensions at a time.
template <int N, class F>
inline void mix_block(const Queries& all, int q, const Tokens<F>& block, const float* factors) {
    constexpr int wide = kSegment / Vec::lanes;
    const float* weights[N];
    for (int n = 0; n < N; ++n) weights[n] = all.score(q + n);
    for (int d = 0; d < all.args->cache.head_dim; d += kSegment) {
        Vec sums[N][wide];
        for (int n = 0; n < N; ++n)
            for (int w = 0; w < wide; ++w)
                sums[n][w] = mul(load(all.out(q + n) + d + w * Vec::lanes), spread(factors[n]));
        for (int s = 0; s < block.segments; ++s) {
            const typename F::Value* at = block.values[s] + d * kSegment;
            const int first = s * kSegment, last = fewer(block.tokens, first + kSegment);
            for (int t = first; t < last; ++t, at += kSegment) {
                Vec values[wide];
                for (int w = 0; w < wide; ++w) values[w] = F::load_at(at + w * Vec::lanes);
                for (int n = 0; n < N; ++n) {
                    const Vec weight = spread(weights[n][t]);
                    for (int w = 0; w < wide; ++w) sums[n][w] = muladd(weight, values[w], sums[n][w]);
                }
            }
        }
        for (int n = 0; n < N; ++n)
            for (int w = 0; w < wide; ++w) store(all.out(q + n) + d + w * Vec::lanes, sums[n][w]);
    }
}

template <int N, class F, bool SCALED> inline void go_over_block(const Queries& all, int q, const Tokens<F>& block) {
    float factors[N];
    score_block<N, F, SCALED>(all, q, block);
    for (int n = 0; n < N; ++n) {
        const int seen = fewer(block.tokens, static_cast<int64_t>(all.position(q + n)) + 1 - block.start);
        factors[n] = weigh_block(all, q + n, block.segments * kSegment, seen);
        if constexpr (SCALED)
            for (int s = 0; s < block.segments; ++s)
                for (int t = 0; t < kSegment; t += Vec::lanes) {
                    float* scores = all.score(q + n) + s * kSegment + t;
                    store(scores, mul(load(scores), load(block.value_scales[s] + t)));
                }
    }
    mix_block<N, F>(all, q, block, factors);
}

template <class F, bool SCALED> void all_over_block(const Queries& all, const Tokens<F>& block) {
    int q = 0;
    for (; q + 6 <= all.count; q += 6) go_over_block<6, F, SCALED>(all, q, block);
    for (; q + 4 <= all.count; q += 4) go_over_block<4, F, SCALED>(all, q, block);
    for (; q + 2 <= all.count; q += 2) go_over_block<2, F, SCALED>(all, q, block);
    for (; q < all.count; ++q) go_over_block<1, F, SCALED>(all, q, block);
}

// What many queries read is made fp32 once.
template <class F> Tokens<CachedFp32> widened(const Queries& all, const Tokens<F>& block) {
    const int64_t each = static_cast<int64_t>(kSegment) * all.args->cache.head_dim;
    Tokens<CachedFp32> wide{};
    wide.start = block.start;
    wide.tokens = block.tokens;
    wide.segments = block.segments;
    for (int s = 0; s < block.segments; ++s) {
        float *keys = all.wide_keys + s * each, *values = all.wide_values + s * each;
        for (int64_t i = 0; i < each; i += Vec::lanes) {
            store(keys + i, F::load_at(block.keys[s] + i));
            store(values + i, F::load_at(block.values[s] + i));
        }
        wide.keys[s] = keys;
        wide.values[s] = values;
        wide.key_scales[s] = block.key_scales[s];
        wide.value_scales[s] = block.value_scales[s];
    }
    return wide;
}

template <class F> void attend_tile(const Queries& all) {
    using Value = typename F::Value;
    const CacheView& cache = all.args->cache;
    const int length = all.tile->position + all.tile->rows;
    for (int start = 0; start < length; start += kBlockTokens) {
        Tokens<F> block{};
        block.start = start;
        block.tokens = fewer(kBlockTokens, length - start);
        block.segments = (block.tokens + kSegment - 1) / kSegment;
        for (int s = 0; s < block.segments; ++s) {
            const int token = start + s * kSegment, page = all.tile->pages[token / cache.page_size];
            const int64_t first = (static_cast<int64_t>(page) * cache.kv_heads + all.kv_head) * cache.page_size +
                                  token % cache.page_size;
            block.keys[s] = static_cast<const Value*>(cache.keys) + first * cache.head_dim;
            block.values[s] = static_cast<const Value*>(cache.values) + first * cache.head_dim;
            if (!F::scaled) continue;
            block.key_scales[s] = cache.key_scales + first;
            block.value_scales[s] = cache.value_scales + first;
        }
        if (sizeof(Value) < 4 && all.count >= 8) all_over_block<CachedFp32, F::scaled>(all, widened(all, block));
        else all_over_block<F, F::scaled>(all, block);
    }
}

void attend(const AttentionArgs& args, const Tile& tile, int kv_head, void* scratch) {
    const CacheView& cache = args.cache;
    Queries all{&args, &tile, kv_head, args.heads / cache.kv_heads, 0, nullptr, nullptr, nullptr, nullptr, nullptr};
    all.count = tile.rows * all.shared;
    const int64_t queries = static_cast<int64_t>(all.shared) * kTileRows;
    const int64_t block = static_cast<int64_t>(kBlockTokens) * cache.head_dim;
    all.wide_keys = static_cast<float*>(scratch);
    all.wide_values = all.wide_keys + block;
    all.scores = all.wide_values + block;
    all.most = all.scores + queries * kBlockTokens;
    all.total = all.most + queries;
    for (int q = 0; q < all.count; ++q) {
        all.most[q] = -__builtin_inff();
        all.total[q] = 0;
        for (int d = 0; d < cache.head_dim; ++d) all.out(q)[d] = 0;
    }
    if (cache.format == CacheFormat::int8) attend_tile<CachedInt8>(all);
    else if (cache.format == CacheFormat::bf16) attend_tile<CachedBf16>(all);
    else attend_tile<CachedFp32>(all);
    for (int q = 0; q < all.count; ++q) {
        const Vec share = spread(1.f / all.total[q]);
        float* out = all.out(q);
        for (int d = 0; d < cache.head_dim; d += Vec::lanes) store(out + d, mul(load(out + d), share));
    }
}
