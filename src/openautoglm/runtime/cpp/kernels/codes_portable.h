// Sums of int8 and int4 groups in plain C++. Included inside the namespace of the path.

inline float from_fp16(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 31u, fraction = half & 1023u;
    if (exponent == 31) return from_bits(sign | 0x7F800000u | fraction << 13);
    if (exponent != 0) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    const float small = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -small : small;
}

// Sums (code - zero) * activation over one group into `totals`; unsigned, so that damaged zero points only wrap around.
template <int BITS>
void group_totals(const uint8_t* data, const int8_t* a, int count, uint32_t* totals) {
    for (int k = 0; k < count; k += BITS == 8 ? 4 : 8, data += kPanel * 4)
        for (int n = 0; n < kPanel; ++n) {
            int32_t total = 0;
            for (int b = 0; b < 4; ++b) {
                const int code = data[n * 4 + b];
                if constexpr (BITS == 8) total += code * a[k + b];
                else total += (code & 15) * a[k + b] + (code >> 4) * a[k + 4 + b];
            }
            totals[n] += static_cast<uint32_t>(total);
        }
}

template <int ROWS, int BITS> void code_tile(const TileArgs& args) {
    const PackedView& view = *args.view;
    for (int r = 0; r < ROWS; ++r) {
        float sums[kPanel] = {};
        for (int g = 0; g < view.groups; ++g) {
            const uint8_t* group = args.panel + sizeof(PanelHead) + g * view.group_bytes;
            const uint16_t* scales = reinterpret_cast<const uint16_t*>(group);
            const int64_t at = static_cast<int64_t>(r) * view.groups + g;
            uint32_t totals[kPanel];
            for (int n = 0; n < kPanel; ++n) {
                const uint32_t point = view.zeros ? scales[kPanel + n] : BITS == 8 ? 128 : 8;
                totals[n] = 0u - point * static_cast<uint32_t>(args.sums[at]);
            }
            group_totals<BITS>(group + sizeof(GroupHead) * (view.zeros ? 2 : 1),
                               args.values + static_cast<int64_t>(r) * view.width + g * view.group_padded,
                               view.group_padded, totals);
            for (int n = 0; n < kPanel; ++n)
                sums[n] += static_cast<float>(static_cast<int32_t>(totals[n])) * (from_fp16(scales[n]) * args.scales[at]);
        }
        finish_row(args, r, sums);
    }
}
