#include "core/operators.h"

#include <cstring>
#include <stdexcept>

namespace autoglm {

void Scratch::reserve_codes(const PackedView& weight, int rows) {
    if (weight.width == 0) return;
    const size_t groups = static_cast<size_t>(rows) * weight.groups;
    values_.reserve(static_cast<size_t>(rows) * weight.width);
    scales_.reserve(groups * sizeof(float));
    sums_.reserve(groups * sizeof(int32_t));
}

void Scratch::reserve_attention(int members, int queries_per_kv, int page_size) {
    attention_each_ = (attention_scratch(queries_per_kv, page_size) + 15) / 16 * 16;
    attention_.reserve(attention_each_ * sizeof(float) * members);
}

namespace {

void expect(bool holds, const char* fault) {
    if (!holds) throw std::invalid_argument(fault);
}

}  // namespace

Layout lay_out(const int32_t* first_rows, const int32_t* lengths, const int32_t* page_table, int sequences,
               int64_t table_width, int rows, int pages, int page_size) {
    expect(first_rows[0] == 0 && first_rows[sequences] == rows, "the layout's rows are not those of the step");
    Layout layout{page_table, table_width, {}, {}, {}};
    layout.sequence.reserve(rows);
    layout.position.reserve(rows);
    for (int s = 0; s < sequences; ++s) {
        const int64_t count = static_cast<int64_t>(first_rows[s + 1]) - first_rows[s];
        const int64_t start = lengths[s] - count;
        expect(count >= 1 && first_rows[s + 1] <= rows && start >= 0, "a sequence of the layout has no rows or too many");
        expect(lengths[s] <= table_width * page_size, "a sequence of the layout is longer than its pages");
        const int32_t* own = page_table + s * table_width;
        for (int64_t page = 0; page * page_size < lengths[s]; ++page)
            expect(own[page] >= 0 && own[page] < pages, "a page lies outside the cache");
        for (int64_t row = 0; row < count; ++row) {
            layout.sequence.push_back(s);
            layout.position.push_back(static_cast<int32_t>(start + row));
        }
        for (int64_t row = 0; row < count; row += kTileRows) {
            const int64_t taken = count - row < kTileRows ? count - row : kTileRows;
            layout.tiles.push_back({static_cast<int>(first_rows[s] + row), static_cast<int>(taken),
                                    static_cast<int>(start + row), own});
        }
    }
    return layout;
}

void linear(const Member& member, const PackedView& weight, Rows x, int rows, Rows y) {
    const Share panels = member.share(weight.panels_count);
    if (weight.width == 0) {
        member.kernels.matmul_float(weight, x.data, x.stride, rows, y.data, y.stride, panels.first, panels.last);
        return;
    }
    const Codes codes = member.scratch.codes();
    const Share groups = member.share(static_cast<int64_t>(rows) * weight.groups);
    for (int64_t at = groups.first; at < groups.last;) {
        const int64_t row = at / weight.groups, first = at % weight.groups;
        const int64_t last = groups.last - row * weight.groups < weight.groups ? groups.last - row * weight.groups : weight.groups;
        member.kernels.quantise(weight, x[row], static_cast<int>(row), codes, first, last);
        at += last - first;
    }
    member.team.barrier();
    member.kernels.matmul_codes(weight, codes, rows, y.data, y.stride, panels.first, panels.last);
}

void rms_norm(const Member& member, Rows x, const float* weight, int rows, int width, float eps, Rows y) {
    const Share own = member.share(rows);
    for (int64_t r = own.first; r < own.last; ++r) member.kernels.rms_norm(x[r], weight, width, eps, y[r]);
}

void add_rms_norm(const Member& member, Rows x, Rows y, const float* weight, int rows, int width, float eps, Rows out) {
    const Share own = member.share(rows);
    for (int64_t r = own.first; r < own.last; ++r) {
        member.kernels.add(x[r], y[r], width, x[r]);
        member.kernels.rms_norm(x[r], weight, width, eps, out[r]);
    }
}

void add(const Member& member, Rows x, Rows y, int rows, int width, Rows out) {
    const Share own = member.share(rows);
    for (int64_t r = own.first; r < own.last; ++r) member.kernels.add(x[r], y[r], width, out[r]);
}

void rotary(const Member& member, Rows x, int rows, int heads, int head_dim, int rotary_dims, const float* table,
            const int32_t* positions) {
    const Share own = member.share(rows);
    for (int64_t r = own.first; r < own.last; ++r)
        member.kernels.rotary(x[r], heads, head_dim, rotary_dims, table + static_cast<int64_t>(positions[r]) * rotary_dims);
}

void silu_mul(const Member& member, Rows gate, Rows up, int rows, int width, Rows out) {
    constexpr int64_t piece = 256;  // so that one row, too, is work for all
    const int64_t pieces = (width + piece - 1) / piece;
    const Share own = member.share(rows * pieces);
    for (int64_t at = own.first; at < own.last; ++at) {
        const int64_t r = at / pieces, start = at % pieces * piece;
        const int64_t count = width - start < piece ? width - start : piece;
        member.kernels.silu_mul(gate[r] + start, up[r] + start, static_cast<int>(count), out[r] + start);
    }
}

void gather(const Member& member, const Table& table, const int32_t* numbers, int rows, int width, Rows out) {
    const Share own = member.share(rows);
    for (int64_t r = own.first; r < own.last; ++r) {
        const int64_t number = numbers[r], at = number * width;
        if (table.format == Format::bf16)
            member.kernels.widen_bf16(static_cast<const uint16_t*>(table.data) + at, width, out[r]);
        else if (table.format == Format::int8)
            member.kernels.widen_int8(static_cast<const int8_t*>(table.data) + at, table.scales[number], width, out[r]);
        else
            std::memcpy(out[r], static_cast<const float*>(table.data) + at, sizeof(float) * width);
    }
}

void write_cache(const Member& member, const CacheView& cache, const Layout& layout, Rows keys, Rows values) {
    const Share own = member.share(static_cast<int64_t>(layout.position.size()));
    for (int64_t r = own.first; r < own.last; ++r) {
        const int position = layout.position[r];
        const int page = layout.page_table[layout.sequence[r] * layout.table_width + position / cache.page_size];
        member.kernels.write_cache(cache, keys[r], values[r], page, position % cache.page_size);
    }
}

void attend(const Member& member, const AttentionArgs& args, const Layout& layout, std::atomic<int64_t>& next) {
    const int64_t heads = args.cache.kv_heads, units = static_cast<int64_t>(layout.tiles.size()) * heads;
    float* scratch = member.scratch.attention(member.index);
    // the last tiles of a long prompt cost most, so they go first
    for (int64_t unit; (unit = next.fetch_add(1, std::memory_order_relaxed)) < units;) {
        const int64_t turn = units - 1 - unit;
        member.kernels.attend(args, layout.tiles[turn / heads], static_cast<int>(turn % heads), scratch);
    }
}

}  // namespace autoglm
