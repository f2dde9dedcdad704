// Codes that are given are packed as they are: nothing is rounded.
#include <algorithm>
#include <cstring>

#include "core/packing.h"

namespace autoglm {

namespace {

// One row of a matrix as it is stored.
struct StoredRow {
    const uint8_t* codes;
    const uint16_t* shares;
    const uint8_t* zeros;
    float scale;
};

StoredRow row_of(const StoredArgs& args, int64_t row) {
    const PackedView& view = args.view;
    const bool wide = view.format == Format::int8;
    const int64_t bytes = wide ? view.inputs : (view.inputs + 1) / 2;
    auto part = args.parts.begin();
    for (; row >= part->count; ++part) row -= part->count;
    const uint8_t* zeros = view.zeros ? part->zeros + row * view.groups : nullptr;
    return {part->codes + row * bytes, part->shares + row * view.groups, zeros, part->scales[row]};
}

void pack_group(const PackedView& view, const StoredRow& row, int g, int n, uint8_t* group) {
    std::memcpy(group + n * sizeof(uint16_t), row.shares + g, sizeof(uint16_t));
    if (view.zeros) {
        const uint16_t zero = row.zeros[g];
        std::memcpy(group + sizeof(GroupHead) + n * sizeof(zero), &zero, sizeof(zero));
    }
    uint8_t* codes = group + sizeof(GroupHead) * (view.zeros ? 2 : 1);
    const int first = g * view.group;
    if (view.format == Format::int8) {
        const uint8_t turn = view.zeros ? 0 : 128;  // symmetric ones are stored signed
        for (int k = 0; k < view.group; ++k)
            codes[(k / 4 * kPanel + n) * 4 + k % 4] = static_cast<uint8_t>(row.codes[first + k] + turn);
        return;
    }
    for (int k = 0; k < view.group; ++k) {
        const int code = row.codes[(first + k) / 2] >> ((first + k) % 2 * 4) & 15;
        codes[(k / 8 * kPanel + n) * 4 + k % 4] |= static_cast<uint8_t>(code << (k % 8 / 4 * 4));
    }
}

}  // namespace

void pack_stored(const StoredArgs& args, std::atomic<int64_t>& next) {
    const PackedView& view = args.view;
    for (int64_t number; (number = next.fetch_add(1, std::memory_order_relaxed)) < view.panels_count;) {
        uint8_t* panel = args.panels + number * view.panel_bytes;
        const int64_t first = number * kPanel;
        const int taken = static_cast<int>(std::min<int64_t>(kPanel, view.outputs - first));
        std::memset(panel, 0, view.panel_bytes);
        PanelHead head{};
        for (int n = 0; n < taken; ++n) {
            const StoredRow row = row_of(args, first + n);
            head.scale[n] = row.scale;
            head.bias[n] = args.bias ? args.bias[first + n] : 0.f;
            for (int g = 0; g < view.groups; ++g)
                pack_group(view, row, g, n, panel + sizeof(PanelHead) + g * view.group_bytes);
        }
        std::memcpy(panel, &head, sizeof(head));
    }
}

}  // namespace autoglm
