#include "core/packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/half.h"

namespace autoglm {

namespace {

constexpr float kRounder = 12582912.f;  // 1.5 * 2^23: adding and taking it away rounds to a whole number, ties to even

float round_whole(float x) { return (x + kRounder) - kRounder; }

uint16_t to_bf16(float x) {
    const uint32_t bits = bits_of(x);
    if (std::isnan(x)) return 0x7FC0;
    return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// The nearest fp16 of a number between -1 and 1, ties to even.
uint16_t to_half(float x) {
    const uint32_t bits = bits_of(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude < 0x38800000u) {  // below 2^-14 fp16 counts in steps of 2^-24
        const float steps = round_whole(from_bits(magnitude) * 16777216.f);
        return static_cast<uint16_t>(sign | static_cast<uint32_t>(steps));
    }
    const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// Row `row` of the matrix in fp32.
void read_row(const PackArgs& args, int64_t row, float* out) {
    const int width = args.view.inputs;
    for (const PackPart& part : args.parts) {
        if (row >= part.count) {
            row -= part.count;
            continue;
        }
        if (!part.bf16) {
            std::memcpy(out, static_cast<const float*>(part.rows) + row * width, sizeof(float) * width);
            return;
        }
        const uint16_t* from = static_cast<const uint16_t*>(part.rows) + row * width;
        for (int i = 0; i < width; ++i) out[i] = from_bits(static_cast<uint32_t>(from[i]) << 16);
        return;
    }
}

void pack_floats(const PackedView& view, const float* rows, int taken, uint8_t* data) {
    for (int n = 0; n < taken; ++n) {
        const float* row = rows + static_cast<int64_t>(n) * view.inputs;
        for (int64_t k = 0; k < view.inputs; ++k) {
            if (view.format == Format::fp32) {
                std::memcpy(data + (k * kPanel + n) * 4, row + k, 4);
            } else {
                const uint16_t value = to_bf16(row[k]);
                std::memcpy(data + (k / 2 * kPanel + n) * 4 + k % 2 * 2, &value, 2);
            }
        }
    }
}

// Least and greatest of a group; false if one of its values is not finite.
bool bounds(const float* x, int count, float& least, float& greatest) {
    least = greatest = x[0];
    float trace = 0;  // stays zero while all are finite
    for (int i = 0; i < count; ++i) {
        least = x[i] < least ? x[i] : least;
        greatest = x[i] > greatest ? x[i] : greatest;
        trace += x[i] * 0.f;
    }
    return trace == 0.f;
}

struct Rounding {
    bool zeros, wide;  // wide: 8 bits
    float top() const { return wide ? 255.f : 15.f; }

    // The scale of a group before it becomes a share of the row's largest.
    float scale(float least, float greatest) const {
        if (zeros) return (std::max(greatest, 0.f) - std::min(least, 0.f)) / top();
        if (wide) return (-least > greatest ? -least : greatest) / 127.f;
        return (-least > greatest ? least : greatest) / -8.f;
    }
};

void put_code(const PackedView& view, uint8_t* codes, int n, int k, int code) {
    if (view.format == Format::int8) codes[(k / 4 * kPanel + n) * 4 + k % 4] = static_cast<uint8_t>(code);
    else codes[(k / 8 * kPanel + n) * 4 + k % 4] |= static_cast<uint8_t>(code << (k % 8 / 4 * 4));
}

// Codes of one group of one row, with its inverse scale; returns the zero point.
int round_group(const PackedView& view, const float* x, float least, float inverse, uint8_t* codes, int n) {
    const Rounding rounding{view.zeros, view.format == Format::int8};
    const float top = rounding.top();
    if (view.zeros) {
        const float zero = std::min(std::max(round_whole(-std::min(least, 0.f) * inverse), 0.f), top);
        for (int k = 0; k < view.group; ++k)
            put_code(view, codes, n, k, static_cast<int>(std::min(std::max(round_whole(x[k] * inverse) + zero, 0.f), top)));
        return static_cast<int>(zero);
    }
    const float low = rounding.wide ? -127.f : -8.f, high = rounding.wide ? 127.f : 7.f;
    const int middle = rounding.wide ? 128 : 8;
    for (int k = 0; k < view.group; ++k)
        put_code(view, codes, n, k, static_cast<int>(std::min(std::max(round_whole(x[k] * inverse), low), high)) + middle);
    return middle;
}

bool pack_codes(const PackedView& view, const float* rows, int taken, uint8_t* panel, float* scales) {
    const Rounding rounding{view.zeros, view.format == Format::int8};
    float* leasts = scales + view.groups;
    for (int n = 0; n < taken; ++n) {
        const float* row = rows + static_cast<int64_t>(n) * view.inputs;
        float largest = 0;
        for (int g = 0; g < view.groups; ++g) {
            float greatest;
            if (!bounds(row + static_cast<int64_t>(g) * view.group, view.group, leasts[g], greatest)) return false;
            scales[g] = rounding.scale(leasts[g], greatest);
            largest = std::max(largest, std::fabs(scales[g]));
        }
        std::memcpy(panel + n * sizeof(float), &largest, sizeof(float));
        for (int g = 0; g < view.groups; ++g) {
            uint8_t* group = panel + sizeof(PanelHead) + g * view.group_bytes;
            const uint16_t share = to_half(largest > 0 ? scales[g] / largest : 0.f);
            const float scale = from_half(share) * largest;
            const float inverse = std::fabs(scale) > 1.17549435e-38f ? 1.f / scale : 0.f;
            std::memcpy(group + n * sizeof(share), &share, sizeof(share));
            uint8_t* codes = group + sizeof(GroupHead) * (view.zeros ? 2 : 1);
            const auto zero = static_cast<uint16_t>(
                round_group(view, row + static_cast<int64_t>(g) * view.group, leasts[g], inverse, codes, n));
            if (view.zeros) std::memcpy(group + sizeof(GroupHead) + n * sizeof(zero), &zero, sizeof(zero));
        }
    }
    return true;
}

bool pack_panel(const PackArgs& args, int64_t number, float* rows) {
    const PackedView& view = args.view;
    uint8_t* panel = args.panels + number * view.panel_bytes;
    const int64_t first = number * kPanel;
    const int taken = static_cast<int>(std::min<int64_t>(kPanel, view.outputs - first));
    std::memset(panel, 0, view.panel_bytes);
    PanelHead head{};
    for (int n = 0; n < taken; ++n) {
        head.scale[n] = 1;
        head.bias[n] = args.bias ? args.bias[first + n] : 0.f;
        read_row(args, first + n, rows + static_cast<int64_t>(n) * view.inputs);
    }
    std::memcpy(panel, &head, sizeof(head));
    if (view.width == 0) {
        pack_floats(view, rows, taken, panel + sizeof(PanelHead));
        return true;
    }
    return pack_codes(view, rows, taken, panel, rows + static_cast<int64_t>(kPanel) * view.inputs);
}

}  // namespace

bool pack_panels(const PackArgs& args, std::atomic<int64_t>& next, float* scratch) {
    for (int64_t number; (number = next.fetch_add(1, std::memory_order_relaxed)) < args.view.panels_count;)
        if (!pack_panel(args, number, scratch)) return false;
    return true;
}

}  // namespace autoglm
