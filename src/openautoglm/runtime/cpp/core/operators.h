// The operators as a member of a team does its part of them. All members call the same operator with the same
// arguments; what one operator wrote may be read by the next only after a barrier. Sizes are checked by the caller.
// Unless said otherwise outputs do not overlap inputs, and an operator has no barrier inside.
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

// Memory that operators need beside their inputs and outputs; reserved before a region starts, for the largest of all
// operators that run in it. One piece for each member, and codes for linear().
class Scratch {
public:
    void reserve_codes(const PackedView& weight, int rows);
    void reserve_linear(int members, const PackedView& weight, int rows);  // each linear, with codes given or not
    void reserve_rows(int members, int width);  // norms, silu_mul_quantise
    void reserve_attention(int members, int queries_per_kv, int head_dim);
    void reserve(int members, size_t bytes_each);
    Codes codes() const { return {values_.as<int8_t>(), scales_.as<float>(), sums_.as<int32_t>()}; }
    template <class T = void> T* own(int member) const { return reinterpret_cast<T*>(own_.data() + member * each_); }
    size_t bytes() const { return values_.size() + scales_.size() + sums_.size() + own_.size(); }

private:
    Memory values_, scales_, sums_, own_;
    size_t each_ = 0;
};

struct Member {
    Team& team;
    const Kernels& kernels;
    Scratch& scratch;
    int index;

    Share share(int64_t count) const { return Share(count, index, team.size()); }
};

// Rows of fp32, `stride` apart: a whole matrix, or neighbouring columns of one.
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

// y = x W^T + bias. Has a barrier inside when the weights are int8 or int4. Members take panels from `next`, which is
// zero before the first comes.
void linear(const Member&, const PackedView& weight, Rows x, int rows, Rows y, std::atomic<int64_t>& next);
// The same of rows that are codes already, in groups as the weight's; no barrier inside.
void quantised_rows_linear(const Member&, const PackedView& weight, const Codes& codes, int rows, Rows y,
                           std::atomic<int64_t>& next);
void quantise_rows(const Member&, const Grouping&, Rows x, int rows, const Codes& codes);

// Norms: without a weight (nullptr) rows are only divided by their root mean square. y may be x, and total x or y; if
// it is, some members may be idle where there are few rows: otherwise all of them read a row and each writes a part.
void rms_norm(const Member&, Rows x, const float* weight, int rows, int width, float eps, Rows y);
void rms_norm_quantise(const Member&, Rows x, const float* weight, int rows, int width, float eps, const Grouping&,
                       const Codes& codes);
// total = x + y, and its norm.
void add_rms_norm(const Member&, Rows x, Rows y, const float* weight, int rows, int width, float eps, Rows total,
                  Rows out);
void add_rms_norm_quantise(const Member&, Rows x, Rows y, const float* weight, int rows, int width, float eps,
                           Rows total, const Grouping&, const Codes& codes);

// Value by value; out may be any of the inputs.
void add(const Member&, Rows x, Rows y, int rows, int width, Rows out);
void mul(const Member&, Rows x, Rows y, int rows, int width, Rows out);
void silu(const Member&, Rows x, int rows, int width, Rows out);
// silu(gate) * up; of one gate_up buffer gate is its first `width` columns and up the others.
void silu_mul(const Member&, Rows gate, Rows up, int rows, int width, Rows out);
void silu_mul_quantise(const Member&, Rows gate, Rows up, int rows, int width, const Grouping&, const Codes& codes);

// table [positions, rotary_dims]: cosine and sine of each pair; y may be x
void rotary(const Member&, Rows x, int rows, int heads, int head_dim, int rotary_dims, const float* table,
            const int32_t* positions, Rows y);

struct Table {
    Format format;        // fp32, bf16 or int8
    const void* data;     // [entries, width]
    const float* scales;  // [entries]; int8 only
    int64_t entries;
};
// Copy rows `numbers` of a table; the numbers are below its entries.
void gather(const Member&, const Table& table, const int32_t* numbers, int rows, int width, Rows out);
// The same of a packed matrix: values of a row (or pairs, or fours of them) lie a panel's width apart.
void gather_packed(const Member&, const PackedView& matrix, const int32_t* numbers, int rows, Rows out);
// Values [first, last) of a row of a packed matrix of int8 or int4, as its dequantised matrix holds them, to the last bit.
void gather_codes(const PackedView& matrix, int64_t number, int64_t first, int64_t last, float* y);
// Copy rows `numbers` of x.
void gather_rows(const Member&, Rows x, const int32_t* numbers, int rows, int width, Rows out);

// Write keys and values of all rows into their pages.
void write_cache(const Member&, const CacheView& cache, const Layout& layout, Rows keys, Rows values);
// Attend; members take tiles from `next`, which is zero before the first comes.
void attend(const Member&, const AttentionArgs& args, const Layout& layout, std::atomic<int64_t>& next);
// write_cache, barrier, attend: without the barrier where each row is a sequence of its own, as in decoding.
void write_and_attend(const Member&, const AttentionArgs& args, const Layout& layout, Rows keys, Rows values,
                      std::atomic<int64_t>& next);

}  // namespace autoglm
