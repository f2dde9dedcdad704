// Rows of a packed matrix in int8 or int4, as of a table; the same on every path.
#include <algorithm>

#include "core/half.h"
#include "core/operators.h"

namespace autoglm {

void gather_codes(const PackedView& matrix, int64_t number, int64_t first, int64_t last, float* y) {
    const uint8_t* panel = matrix.panels + number / kPanel * static_cast<int64_t>(matrix.panel_bytes);
    const int64_t lane = number % kPanel;
    const float row_scale = reinterpret_cast<const float*>(panel)[lane];
    const bool wide = matrix.format == Format::int8;
    for (int64_t g = first / matrix.group, i = first; i < last; ++g) {
        const uint8_t* group = panel + sizeof(PanelHead) + g * static_cast<int64_t>(matrix.group_bytes);
        const uint16_t* head = reinterpret_cast<const uint16_t*>(group) + lane;
        const float scale = from_half(head[0]) * row_scale;
        const int zero = matrix.zeros ? head[kPanel] : wide ? 128 : 8;
        const uint8_t* codes = group + sizeof(GroupHead) * (matrix.zeros ? 2 : 1) + lane * 4;
        const int64_t begin = g * matrix.group, end = std::min(last, begin + matrix.group);
        for (; i < end; ++i) {
            const int64_t k = i - begin;
            const int code = wide ? codes[k / 4 * kPanel * 4 + k % 4]
                                  : codes[k / 8 * kPanel * 4 + k % 4] >> (k % 8 / 4 * 4) & 15;
            y[i] = static_cast<float>(code - zero) * scale;
        }
    }
}

}  // namespace autoglm
