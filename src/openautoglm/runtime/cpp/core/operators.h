// The operators as a member of a team does its part of them. All members call the same operator with the same arguments;
// what one operator wrote may be read by the next only after a barrier. Sizes are checked by the caller.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/cache.h"
#include "core/memory.h"
#include "core/packed.h"
#include "core/team.h"
#include "kernels/table.h"

namespace autoglm {

// Memory that operators need beside their inputs and outputs; reserved before a region starts.
class Scratch {
public:
    void reserve_codes(const PackedView& weight, int rows);
    void reserve_attention(int members, int queries_per_kv, int page_size);
    Codes codes() const { return {values_.as<int8_t>(), scales_.as<float>(), sums_.as<int32_t>()}; }
    float* attention(int member) const { return attention_.as<float>() + member * attention_each_; }

private:
    Memory values_, scales_, sums_, attention_;
    size_t attention_each_ = 0;
};

struct Member {
    Team& team;
    const Kernels& kernels;
    Scratch& scratch;
    int index;

    Share share(int64_t count) const { return Share(count, index, team.size()); }
};

// Rows of fp32, `stride` apart.
struct Rows {
    float* data;
    int64_t stride;
    float* operator[](int64_t row) const { return data + row * stride; }
};

// Where the rows of a step belong; checked by lay_out().
struct Layout {
    const int32_t* page_table;      // [sequences, table_width]
    int64_t table_width;
    std::vector<int32_t> sequence;  // of each row
    std::vector<int32_t> position;  // of each row
    std::vector<Tile> tiles;
};

// Check first_rows [sequences + 1], lengths [sequences] and the pages that rows use. Throws std::invalid_argument.
Layout lay_out(const int32_t* first_rows, const int32_t* lengths, const int32_t* page_table, int sequences,
               int64_t table_width, int rows, int pages, int page_size);

// y = x W^T + bias. Has a barrier inside when the weights are int8 or int4.
void linear(const Member&, const PackedView& weight, Rows x, int rows, Rows y);
void rms_norm(const Member&, Rows x, const float* weight, int rows, int width, float eps, Rows y);
// x += y, then out = the norm of x
void add_rms_norm(const Member&, Rows x, Rows y, const float* weight, int rows, int width, float eps, Rows out);
void add(const Member&, Rows x, Rows y, int rows, int width, Rows out);
// table [positions, rotary_dims]: cosine and sine of each pair
void rotary(const Member&, Rows x, int rows, int heads, int head_dim, int rotary_dims, const float* table,
            const int32_t* positions);
void silu_mul(const Member&, Rows gate, Rows up, int rows, int width, Rows out);

struct Table {
    Format format;        // fp32, bf16 or int8
    const void* data;     // [entries, width]
    const float* scales;  // [entries]; int8 only
    int64_t entries;
};
// Copy rows `numbers` of a table; the numbers are below its entries.
void gather(const Member&, const Table& table, const int32_t* numbers, int rows, int width, Rows out);

// Write keys and values of all rows into their pages.
void write_cache(const Member&, const CacheView& cache, const Layout& layout, Rows keys, Rows values);
// Attend; members take tiles from `next`, which is zero before the first comes.
void attend(const Member&, const AttentionArgs& args, const Layout& layout, std::atomic<int64_t>& next);

}  // namespace autoglm
