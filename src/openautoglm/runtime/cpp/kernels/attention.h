// Attention over pages, with a running maximum and sum (Milakov and Gimelshein, arXiv 1805.02867), so that a sequence of
// any length needs no more scratch than one page of scores. Included inside the namespace of a path.
//
// A query is one head of one row; the queries of a tile that share a kv head go over its pages together.

inline uint16_t to_bf16(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FC0;
    return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// One token's key and value [kv_heads * head_dim] into its place of a page.
void write_cache(const CacheView& cache, const float* key, const float* value, int page, int offset) {
    const int dims = cache.head_dim, size = cache.page_size;
    for (int h = 0; h < cache.kv_heads; ++h, key += dims, value += dims) {
        const int64_t block = static_cast<int64_t>(page) * cache.kv_heads + h;
        const int64_t key_at = block * dims * size + offset, value_at = (block * size + offset) * dims;
        if (cache.int8) {
            cache.key_scales[block * size + offset] =
                round_to_int8(key, dims, static_cast<int8_t*>(cache.keys) + key_at, size);
            cache.value_scales[block * size + offset] =
                round_to_int8(value, dims, static_cast<int8_t*>(cache.values) + value_at, 1);
        } else {
            uint16_t* keys = static_cast<uint16_t*>(cache.keys) + key_at;
            uint16_t* values = static_cast<uint16_t*>(cache.values) + value_at;
            for (int d = 0; d < dims; ++d) keys[static_cast<int64_t>(d) * size] = to_bf16(key[d]);
            for (int d = 0; d < dims; ++d) values[d] = to_bf16(value[d]);
        }
    }
}

template <bool INT8> inline Vec load_cached(const void* base, int64_t at) {
    if constexpr (INT8) return load_int8(static_cast<const int8_t*>(base) + at);
    else return load_bf16(static_cast<const uint16_t*>(base) + at);
}

// The queries of one tile and one kv head.
struct Queries {
    const AttentionArgs* args;
    const Tile* tile;
    int kv_head, shared, count;  // shared: heads of a row that use the kv head; count: queries
    float *most, *total, *scores;

    int64_t column(int q) const {
        return static_cast<int64_t>(kv_head * shared + q % shared) * args->cache.head_dim;
    }
    int64_t row(int q) const { return tile->first_row + q / shared; }
    const float* query(int q) const { return args->queries + row(q) * args->query_stride + column(q); }
    float* out(int q) const { return args->out + row(q) * args->out_stride + column(q); }
    float* score(int q) const { return scores + static_cast<int64_t>(q) * args->cache.page_size; }
    int position(int q) const { return tile->position + q / shared; }
};

// Scores of N queries from `q` on with all tokens of a page.
template <int N, bool INT8> inline void score_page(const Queries& all, int q, int64_t block) {
    const CacheView& cache = all.args->cache;
    constexpr int wide = 16 / Vec::lanes;
    const float* queries[N];
    for (int n = 0; n < N; ++n) queries[n] = all.query(q + n);
    for (int t = 0; t < cache.page_size; t += 16) {
        Vec sums[N][wide];
        for (int n = 0; n < N; ++n)
            for (int w = 0; w < wide; ++w) sums[n][w] = zero();
        int64_t at = block * cache.head_dim * cache.page_size + t;
        for (int d = 0; d < cache.head_dim; ++d, at += cache.page_size) {
            Vec keys[wide];
            for (int w = 0; w < wide; ++w) keys[w] = load_cached<INT8>(cache.keys, at + w * Vec::lanes);
            for (int n = 0; n < N; ++n)
                for (int w = 0; w < wide; ++w) sums[n][w] = muladd(spread(queries[n][d]), keys[w], sums[n][w]);
        }
        for (int w = 0; w < wide; ++w) {
            Vec factor = spread(all.args->scale);
            if constexpr (INT8)
                factor = mul(factor, load(cache.key_scales + block * cache.page_size + t + w * Vec::lanes));
            for (int n = 0; n < N; ++n) store(all.score(q + n) + t + w * Vec::lanes, mul(sums[n][w], factor));
        }
    }
}

// Scores to weights, tokens from `seen` on masked; returns the factor for what was summed up before.
inline float weigh_page(const Queries& all, int q, int page_size, int seen) {
    float* scores = all.score(q);
    for (int t = seen > 0 ? seen : 0; t < page_size; ++t) scores[t] = -__builtin_inff();
    if (seen <= 0) {
        for (int t = 0; t < page_size; ++t) scores[t] = 0;
        return 1.f;
    }
    Vec most = spread(all.most[q]);
    for (int t = 0; t < page_size; t += Vec::lanes) most = larger(most, load(scores + t));
    const float peak = largest(most);
    Vec total = zero();
    for (int t = 0; t < page_size; t += Vec::lanes) {
        const Vec weight = exponential(sub(load(scores + t), spread(peak)));
        total = add(total, weight);
        store(scores + t, weight);
    }
    for (int t = seen; t < page_size; ++t) scores[t] = 0;
    float factor[Vec::lanes];
    store(factor, exponential(spread(all.most[q] - peak)));
    all.most[q] = peak;
    all.total[q] = all.total[q] * factor[0] + sum(total);
    return factor[0];
}

// out = out * factor + the weighted values of `tokens` tokens, for N queries.
template <int N, bool INT8>
inline void mix_page(const Queries& all, int q, int64_t block, int tokens, const float* factors) {
    const CacheView& cache = all.args->cache;
    for (int d = 0; d < cache.head_dim; d += Vec::lanes) {
        Vec sums[N];
        for (int n = 0; n < N; ++n) sums[n] = mul(load(all.out(q + n) + d), spread(factors[n]));
        int64_t at = block * cache.page_size * cache.head_dim + d;
        for (int t = 0; t < tokens; ++t, at += cache.head_dim) {
            const Vec values = load_cached<INT8>(cache.values, at);
            for (int n = 0; n < N; ++n) sums[n] = muladd(spread(all.score(q + n)[t]), values, sums[n]);
        }
        for (int n = 0; n < N; ++n) store(all.out(q + n) + d, sums[n]);
    }
}

template <int N, bool INT8> inline void go_over_page(const Queries& all, int q, int64_t block, int start, int tokens) {
    const CacheView& cache = all.args->cache;
    float factors[N];
    score_page<N, INT8>(all, q, block);
    for (int n = 0; n < N; ++n) {
        factors[n] = weigh_page(all, q + n, cache.page_size, fewer(tokens, all.position(q + n) + 1 - start));
        if constexpr (INT8)
            for (int t = 0; t < tokens; ++t) all.score(q + n)[t] *= cache.value_scales[block * cache.page_size + t];
    }
    mix_page<N, INT8>(all, q, block, tokens, factors);
}

template <bool INT8> void attend_tile(const Queries& all) {
    const CacheView& cache = all.args->cache;
    const int length = all.tile->position + all.tile->rows;
    for (int start = 0, number = 0; start < length; start += cache.page_size, ++number) {
        const int64_t block = static_cast<int64_t>(all.tile->pages[number]) * cache.kv_heads + all.kv_head;
        const int tokens = fewer(cache.page_size, length - start);
        int q = 0;
        for (; q + 4 <= all.count; q += 4) go_over_page<4, INT8>(all, q, block, start, tokens);
        for (; q + 2 <= all.count; q += 2) go_over_page<2, INT8>(all, q, block, start, tokens);
        for (; q < all.count; ++q) go_over_page<1, INT8>(all, q, block, start, tokens);
    }
}

void attend(const AttentionArgs& args, const Tile& tile, int kv_head, float* scratch) {
    Queries all{&args, &tile, kv_head, args.heads / args.cache.kv_heads, 0, nullptr, nullptr, nullptr};
    all.count = tile.rows * all.shared;
    all.most = scratch;
    all.total = scratch + all.count;
    all.scores = scratch + 2 * all.count;
    for (int q = 0; q < all.count; ++q) {
        all.most[q] = -__builtin_inff();
        all.total[q] = 0;
        for (int d = 0; d < args.cache.head_dim; ++d) all.out(q)[d] = 0;
    }
    if (args.cache.int8) attend_tile<true>(all);
    else attend_tile<false>(all);
    for (int q = 0; q < all.count; ++q) {
        const float share = 1.f / all.total[q];
        for (int d = 0; d < args.cache.head_dim; ++d) all.out(q)[d] *= share;
    }
}
