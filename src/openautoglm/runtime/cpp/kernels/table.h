// The kernels of one instruction path as a table of functions. Each works on a part of the rows, panels or pages that
// its caller names, in one thread, and allocates nothing. Letters: R rows, K inputs, G groups of a row.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/cpu.h"
#include "core/packed.h"

namespace autoglm {

// How a row of activations is coded in int8: groups of neighbouring values share a scale.
struct Grouping {
    int inputs;        // values of a row
    int group;         // values of a group
    int groups;        // of a row
    int group_padded;  // values of a group in memory, zeros at the end: a multiple of 8
    int width() const { return groups * group_padded; }
};

// group: a divisor of inputs, 0 for the whole row
inline Grouping grouping_of(int inputs, int group) {
    const int size = group == 0 ? inputs : group;
    return {inputs, size, inputs / size, (size + 7) / 8 * 8};
}
inline Grouping grouping_of(const PackedView& view) {
    return {view.inputs, view.group, view.groups, view.group_padded};
}

// Rows of activations in int8: codes [R, Grouping::width()], scales [R, G], sums of the codes of each group [R, G].
struct Codes {
    int8_t* values;
    float* scales;
    int32_t* sums;
};

enum class CacheFormat : uint8_t { fp32, bf16, int8 };

// Keys and values of one layer. Of each page, for each kv head, segments of sixteen tokens: keys [head_dim, 16], so
// that scores of neighbouring tokens come out side by side; values [head_dim / 16, 16 tokens, 16 dimensions]. int8 has
// a scale per token.
struct CacheView {
    CacheFormat format;
    int pages, page_size, kv_heads, head_dim;
    void* keys;           // [pages, kv_heads, page_size / 16, head_dim, 16]
    void* values;         // [pages, kv_heads, page_size / 16, head_dim / 16, 16, 16]
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

// An id that may be drawn.
struct Candidate {
    float logit, weight;
};

// Which panels a member multiplies by: [first, last), then some of those from `rest` on, `grain` at a time, in turn with
// the others, so that a member whose processor does something else meanwhile does not hold them up.
struct Turns {
    int64_t first, last, rest, grain;
    std::atomic<int64_t>* next;  // zero before the first member comes; nobody looks at it where nothing is left
};
int64_t take_turn(std::atomic<int64_t>& next);

struct Kernels {
    // y [R, outputs] (y_stride apart) = x [R, K] W^T + bias, for some panels; scratch: matmul_scratch() bytes
    void (*matmul_float)(const PackedView&, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride,
                         const Turns&, void* scratch);
    void (*matmul_codes)(const PackedView&, const Codes&, int rows, float* y, int64_t y_stride, const Turns&,
                         void* scratch);
    // groups [first, last) of one row of x (`x_row` is where the row starts) into their places in codes
    void (*quantise)(const Grouping&, const float* x_row, int row, const Codes&, int64_t first, int64_t last);
    float (*sum_squares)(const float* x, int width);
    // y = x * factor * weight; without a weight y = x * factor
    void (*scale)(const float* x, const float* weight, float factor, int width, float* y);
    void (*add)(const float* x, const float* y, int width, float* sum);
    void (*mul)(const float* x, const float* y, int width, float* product);
    void (*silu)(const float* x, int width, float* y);
    void (*silu_mul)(const float* gate, const float* up, int width, float* y);
    // heads of one row, x to y (which may be x); table_row [rotary_dims]: cosine and sine of each pair side by side
    void (*rotary)(const float* x, int heads, int head_dim, int rotary_dims, const float* table_row, float* y);
    void (*widen_bf16)(const uint16_t* row, int width, float* y);
    void (*widen_int8)(const int8_t* row, float scale, int width, float* y);
    // one token's key and value of kv head `head`, [head_dim] each
    void (*write_cache)(const CacheView&, int head, const float* key, const float* value, int page, int offset);
    // one tile, one kv head; scratch: attention_scratch() bytes
    void (*attend)(const AttentionArgs&, const Tile&, int kv_head, void* scratch);
    // largest of a row: its first place, or -1 where a value is not a number
    int (*argmax)(const float* x, int width);
    // e ^ ((x - most) * slope) of each into y (where y is given); the sum, block of 256 after block, in fp64
    double (*exponentials)(const float* x, float most, float slope, int width, float* y);
    // of each bucket, (peak - logit) * scale without its fraction, the last for all beyond: the weights of its logits,
    // or their number where there are no weights, added to sums [buckets]
    void (*tally)(const float* logits, const float* weights, int width, float peak, float scale, int buckets,
                  double* sums);
    // the ids of one bucket in their order; returns how many
    int (*collect)(const float* logits, const float* weights, int width, float peak, float scale, int buckets,
                   int bucket, Candidate* found);
    // weights to zero where values are below `least`
    void (*clear_below)(const float* values, float least, int width, float* weights);
    // of each kSumBlock weights their sum
    void (*sum_blocks)(const float* weights, int width, double* sums);
    // what measures a processor's limits: so many int8 or fp32 products in registers, and a walk over memory
    int64_t (*burn_int8)(int64_t products);
    int64_t (*burn_fp32)(int64_t products);
    int64_t (*walk)(const uint8_t* bytes, int64_t count);
};

constexpr int kSumBlock = 64;                // weights of a block when an id is drawn
constexpr int kSegment = 16;                 // tokens of a segment of the cache; divides pages and heads
constexpr int kBlockTokens = 64;             // tokens that attention goes over at a time
constexpr int kMostDims = 1024;              // of a head
constexpr int kTileRows = 16;               // most rows of a tile of attention
constexpr int kManyRows = 12;               // from here on a product spreads weights once for all rows
constexpr int kReadyBytes = 16 << 10;       // of these weights: what stays in the first cache

// What a product needs beside its inputs and outputs, laid out in `memory`, which matmul_scratch() says the size of.
struct MatmulScratch {
    MatmulScratch(const PackedView& view, int rows, void* memory);
    int rows;             // of a chunk, for which all of this is
    float* totals;        // [rows, 32]
    int32_t* partial;     // [rows, 32]
    float* scales;        // [groups, rows]
    int32_t* starts;      // [groups, rows]
    uint8_t* ready;       // kReadyBytes of weights
    uint8_t* items;       // [rows], item_stride bytes apart: activations in the order of the kernel
    int64_t item_stride;
};
size_t matmul_scratch(const PackedView& view, int rows);  // enough for fewer rows, too
size_t attention_scratch(int queries_per_kv, int head_dim);

const Kernels& portable_kernels();
#ifdef AUTOGLM_X86
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif
const Kernels& kernels_for(Isa isa);

}  // namespace autoglm
