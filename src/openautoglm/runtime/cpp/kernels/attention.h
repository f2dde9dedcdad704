// Attention over pages, with a running maximum and sum (Milakov and Gimelshein, arXiv 1805.02867), so that a sequence of
// any length needs no more scratch than one page of scores. Included inside the namespace of a path.
//
// A query is one head of one row; the queries of a tile that share a kv head go over its pages together. What a query
// gets does not depend on how many others go with it.

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

template <class F> void write_cache_as(const CacheView& cache, int64_t block, const float* key, const float* value, int offset) {
    using Value = typename F::Value;
    const int dims = cache.head_dim, size = cache.page_size;
    Value* keys = static_cast<Value*>(cache.keys) + block * dims * size + offset;
    Value* values = static_cast<Value*>(cache.values) + (block * size + offset) * dims;
    if constexpr (F::scaled) {
        cache.key_scales[block * size + offset] = round_to_int8(key, dims, keys, size);
        cache.value_scales[block * size + offset] = round_to_int8(value, dims, values, 1);
    } else {
        for (int d = 0; d < dims; ++d) keys[static_cast<int64_t>(d) * size] = F::from(key[d]);
        for (int d = 0; d < dims; ++d) values[d] = F::from(value[d]);
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
    float *wide_keys, *wide_values;  // room for one page in fp32

    int64_t column(int q) const {
        return static_cast<int64_t>(kv_head * shared + q % shared) * args->cache.head_dim;
    }
    int64_t row(int q) const { return tile->first_row + q / shared; }
    const float* query(int q) const { return args->queries + row(q) * args->query_stride + column(q); }
    float* out(int q) const { return args->out + row(q) * args->out_stride + column(q); }
    float* score(int q) const { return scores + static_cast<int64_t>(q) * args->cache.page_size; }
    int position(int q) const { return tile->position + q / shared; }
};

// A page as a tile reads it: in the format of the cache, or widened to fp32.
template <class F> struct Page {
    const typename F::Value *keys, *values;
    const float *key_scales, *value_scales;  // int8 only
    int start, tokens;                       // position of its first token, tokens that the tile may see
};

// Scores of N queries from `q` on with the tokens of a page, sixteen at a time; those beyond `tokens` mean nothing.
template <int N, class F, bool SCALED> inline void score_page(const Queries& all, int q, const Page<F>& page) {
    const CacheView& cache = all.args->cache;
    constexpr int wide = 16 / Vec::lanes;
    const float* queries[N];
    for (int n = 0; n < N; ++n) queries[n] = all.query(q + n);
    for (int t = 0; t < page.tokens; t += 16) {
        Vec sums[N][wide];
        for (int n = 0; n < N; ++n)
            for (int w = 0; w < wide; ++w) sums[n][w] = zero();
        const typename F::Value* at = page.keys + t;
        for (int d = 0; d < cache.head_dim; ++d, at += cache.page_size) {
            Vec keys[wide];
            for (int w = 0; w < wide; ++w) keys[w] = F::load_at(at + w * Vec::lanes);
            for (int n = 0; n < N; ++n) {
                const Vec query = spread(queries[n][d]);
                for (int w = 0; w < wide; ++w) sums[n][w] = muladd(query, keys[w], sums[n][w]);
            }
        }
        for (int w = 0; w < wide; ++w) {
            Vec factor = spread(all.args->scale);
            if constexpr (SCALED) factor = mul(factor, load(page.key_scales + t + w * Vec::lanes));
            for (int n = 0; n < N; ++n) store(all.score(q + n) + t + w * Vec::lanes, mul(sums[n][w], factor));
        }
    }
}

// Scores of the first `seen` of `padded` tokens to weights, the others to zero; returns the factor for what was summed
// up before.
inline float weigh_page(const Queries& all, int q, int padded, int seen) {
    float* scores = all.score(q);
    if (seen <= 0) {
        for (int t = 0; t < padded; ++t) scores[t] = 0;
        return 1.f;
    }
    for (int t = seen; t < padded; ++t) scores[t] = -__builtin_inff();
    Vec most = spread(all.most[q]);
    for (int t = 0; t < padded; t += Vec::lanes) most = larger(most, load(scores + t));
    const float peak = largest(most);
    Vec total = zero();
    for (int t = 0; t < padded; t += Vec::lanes) {
        const Vec weight = exponential(sub(load(scores + t), spread(peak)));
        store(scores + t, weight);
    }
    for (int t = seen; t < padded; ++t) scores[t] = 0;
    for (int t = 0; t < padded; t += Vec::lanes) total = add(total, load(scores + t));
    const float factor = first(exponential(spread(all.most[q] - peak)));
    all.most[q] = peak;
    all.total[q] = all.total[q] * factor + sum(total);
    return factor;
}

// out = out * factor + the weighted values of `tokens` tokens, for N queries, sixteen dimensions at a time.
template <int N, class F> inline void mix_page(const Queries& all, int q, const Page<F>& page, const float* factors) {
    const CacheView& cache = all.args->cache;
    constexpr int wide = 16 / Vec::lanes;
    const float* weights[N];
    for (int n = 0; n < N; ++n) weights[n] = all.score(q + n);
    for (int d = 0; d < cache.head_dim; d += 16) {
        Vec sums[N][wide];
        for (int n = 0; n < N; ++n)
            for (int w = 0; w < wide; ++w)
                sums[n][w] = mul(load(all.out(q + n) + d + w * Vec::lanes), spread(factors[n]));
        const typename F::Value* at = page.values + d;
        for (int t = 0; t < page.tokens; ++t, at += cache.head_dim) {
            Vec values[wide];
            for (int w = 0; w < wide; ++w) values[w] = F::load_at(at + w * Vec::lanes);
            for (int n = 0; n < N; ++n) {
                const Vec weight = spread(weights[n][t]);
                for (int w = 0; w < wide; ++w) sums[n][w] = muladd(weight, values[w], sums[n][w]);
            }
        }
        for (int n = 0; n < N; ++n)
            for (int w = 0; w < wide; ++w) store(all.out(q + n) + d + w * Vec::lanes, sums[n][w]);
    }
}

template <int N, class F, bool SCALED> inline void go_over_page(const Queries& all, int q, const Page<F>& page) {
    const int padded = (page.tokens + 15) / 16 * 16;
    float factors[N];
    score_page<N, F, SCALED>(all, q, page);
    for (int n = 0; n < N; ++n) {
        const int seen = fewer(page.tokens, static_cast<int64_t>(all.position(q + n)) + 1 - page.start);
        factors[n] = weigh_page(all, q + n, padded, seen);
        if constexpr (SCALED)
            for (int t = 0; t < page.tokens; ++t) all.score(q + n)[t] *= page.value_scales[t];
    }
    mix_page<N, F>(all, q, page, factors);
}

template <class F, bool SCALED> void all_over_page(const Queries& all, const Page<F>& page) {
    int q = 0;
    for (; q + 6 <= all.count; q += 6) go_over_page<6, F, SCALED>(all, q, page);
    for (; q + 4 <= all.count; q += 4) go_over_page<4, F, SCALED>(all, q, page);
    for (; q + 2 <= all.count; q += 2) go_over_page<2, F, SCALED>(all, q, page);
    for (; q < all.count; ++q) go_over_page<1, F, SCALED>(all, q, page);
}

template <class F> void attend_tile(const Queries& all) {
    using Value = typename F::Value;
    const CacheView& cache = all.args->cache;
    const int length = all.tile->position + all.tile->rows, size = cache.page_size;
    const int64_t page_values = static_cast<int64_t>(size) * cache.head_dim;
    const bool widen = sizeof(Value) < 4 && all.count >= 8;  // what many queries read is made fp32 once
    for (int start = 0, number = 0; start < length; start += size, ++number) {
        const int64_t block = static_cast<int64_t>(all.tile->pages[number]) * cache.kv_heads + all.kv_head;
        Page<F> page{static_cast<const Value*>(cache.keys) + block * page_values,
                     static_cast<const Value*>(cache.values) + block * page_values, nullptr, nullptr, start,
                     fewer(size, length - start)};
        if constexpr (F::scaled) {
            page.key_scales = cache.key_scales + block * size;
            page.value_scales = cache.value_scales + block * size;
        }
        if (!widen) {
            all_over_page<F, F::scaled>(all, page);
            continue;
        }
        for (int64_t i = 0; i < page_values; i += Vec::lanes) store(all.wide_keys + i, F::load_at(page.keys + i));
        const int64_t seen = static_cast<int64_t>(page.tokens) * cache.head_dim;
        for (int64_t i = 0; i < seen; i += Vec::lanes) store(all.wide_values + i, F::load_at(page.values + i));
        all_over_page<CachedFp32, F::scaled>(
            all, {all.wide_keys, all.wide_values, page.key_scales, page.value_scales, start, page.tokens});
    }
}

void attend(const AttentionArgs& args, const Tile& tile, int kv_head, void* scratch) {
    const CacheView& cache = args.cache;
    Queries all{&args, &tile, kv_head, args.heads / cache.kv_heads, 0, nullptr, nullptr, nullptr, nullptr, nullptr};
    all.count = tile.rows * all.shared;
    const int64_t queries = static_cast<int64_t>(all.shared) * kTileRows;
    const int64_t page = static_cast<int64_t>(cache.page_size) * cache.head_dim;
    all.wide_keys = static_cast<float*>(scratch);
    all.wide_values = all.wide_keys + page;
    all.scores = all.wide_values + page;
    all.most = all.scores + queries * cache.page_size;
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
