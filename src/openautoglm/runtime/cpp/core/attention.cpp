// The operators that meet the cache, and the layout of a step.
#include <stdexcept>

#include "core/operators.h"

namespace autoglm {

namespace {

void expect(bool holds, const char* fault) {
    if (!holds) throw std::invalid_argument(fault);
}

void write_row(const Member& member, const CacheView& cache, const Layout& layout, Rows keys, Rows values, int64_t row,
               int64_t first_head, int64_t last_head) {
    const int position = layout.position[row];
    const int page = layout.page_table[layout.sequence[row] * layout.table_width + position / cache.page_size];
    for (int64_t h = first_head; h < last_head; ++h)
        member.kernels.write_cache(cache, static_cast<int>(h), keys[row] + h * cache.head_dim,
                                   values[row] + h * cache.head_dim, page, position % cache.page_size);
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
        expect(count >= 1 && first_rows[s + 1] <= rows && start >= 0,
               "a sequence of the layout has no rows or too many");
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

void write_cache(const Member& member, const CacheView& cache, const Layout& layout, Rows keys, Rows values) {
    const int64_t heads = cache.kv_heads;
    const Share own = member.share(static_cast<int64_t>(layout.position.size()) * heads);
    for (int64_t at = own.first; at < own.last; ++at)
        write_row(member, cache, layout, keys, values, at / heads, at % heads, at % heads + 1);
}

void attend(const Member& member, const AttentionArgs& args, const Layout& layout, std::atomic<int64_t>& next) {
    const int64_t heads = args.cache.kv_heads, units = static_cast<int64_t>(layout.tiles.size()) * heads;
    // the last tiles of a long prompt cost most, so they go first
    for (int64_t unit; (unit = next.fetch_add(1, std::memory_order_relaxed)) < units;) {
        const int64_t turn = units - 1 - unit;
        member.kernels.attend(args, layout.tiles[turn / heads], static_cast<int>(turn % heads),
                              member.scratch.own(member.index));
    }
}

void write_and_attend(const Member& member, const AttentionArgs& args, const Layout& layout, Rows keys, Rows values,
                      std::atomic<int64_t>& next) {
    if (layout.tiles.size() < layout.position.size()) {
        write_cache(member, args.cache, layout, keys, values);
        member.team.barrier();
        return attend(member, args, layout, next);
    }
    const int64_t heads = args.cache.kv_heads, units = static_cast<int64_t>(layout.tiles.size()) * heads;
    for (int64_t unit; (unit = next.fetch_add(1, std::memory_order_relaxed)) < units;) {
        const Tile& tile = layout.tiles[unit / heads];
        write_row(member, args.cache, layout, keys, values, tile.first_row, unit % heads, unit % heads + 1);
        member.kernels.attend(args, tile, static_cast<int>(unit % heads), member.scratch.own(member.index));
    }
}

}  // namespace autoglm
