// The kernels of one instruction path as a table of functions. Each works on a part of the rows, panels or pages that
// its caller names, in one thread, and allocates nothing. Letters: R rows, K inputs, G groups of a row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cpu.h"
#include "core/packed.h"

namespace autoglm {

// Rows of activations in int8: codes [R, view.width], scales [R, G], sums of the codes of each group [R, G].
struct Codes {
    int8_t* values;
    float* scales;
    int32_t* sums;
};

// Keys and values of one layer. Of each page, for each kv head: keys transposed [head_dim, page_size], so that scores
// of neighbouring tokens come out side by side; values [page_size, head_dim]. bf16, or int8 with a scale per token.
struct CacheView {
    bool int8;
    int pages, page_size, kv_heads, head_dim;
    void* keys;           // [pages, kv_heads, head_dim, page_size]
    void* values;         // [pages, kv_heads, page_size, head_dim]
    float* key_scales;    // [pages, kv_heads, page_size]; int8 only
    float* value_scales;
};

// Neighbouring rows of one sequence at neighbouring positions.
struct Tile {
    int first_row, rows;
    int position;          // of the first row
    const int32_t* pages;  // of the sequence, enough for position + rows tokens
};

struct AttentionArgs {
    CacheView cache;
    const float* queries;  // [R, heads * head_dim], query_stride apart
    float* out;            // [R, heads * head_dim]
    int heads;
    int64_t query_stride, out_stride;
    float scale;
};

struct Kernels {
    // y [R, outputs] (y_stride apart) = x [R, K] W^T + bias, for panels [first, last)
    void (*matmul_float)(const PackedView&, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride,
                         int64_t first, int64_t last);
    void (*matmul_codes)(const PackedView&, const Codes&, int rows, float* y, int64_t y_stride, int64_t first,
                         int64_t last);
    // groups [first, last) of one row of x into its place in codes
    void (*quantise)(const PackedView&, const float* x_row, int row, const Codes&, int64_t first, int64_t last);
    void (*rms_norm)(const float* x, const float* weight, int width, float eps, float* y);
    void (*add)(const float* x, const float* y, int width, float* sum);
    // table [positions, rotary_dims]: cosine and sine of each pair side by side
    void (*rotary)(float* x, int heads, int head_dim, int rotary_dims, const float* table_row);
    void (*silu_mul)(const float* gate, const float* up, int width, float* y);
    void (*widen_bf16)(const uint16_t* row, int width, float* y);
    void (*widen_int8)(const int8_t* row, float scale, int width, float* y);
    void (*write_cache)(const CacheView&, const float* key, const float* value, int page, int offset);
    // one tile, one kv head; scratch: attention_scratch() floats
    void (*attend)(const AttentionArgs&, const Tile&, int kv_head, float* scratch);
};

constexpr int kTileRows = 8;  // most rows of a tile

// Floats of scratch that attend() needs: maxima and sums, then scores, of all queries of a tile.
inline size_t attention_scratch(int queries_per_kv, int page_size) {
    const size_t queries = static_cast<size_t>(queries_per_kv) * kTileRows;
    return queries * (2 + static_cast<size_t>(page_size)) + 64;
}

const Kernels& portable_kernels();
#ifdef AUTOGLM_X86
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif
const Kernels& kernels_for(Isa isa);

}  // namespace autoglm
