#include "core/operators.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace autoglm {

void Scratch::reserve_codes(const PackedView& weight, int rows) {
    if (weight.width == 0) return;
    const size_t groups = static_cast<size_t>(rows) * weight.groups;
    values_.reserve(static_cast<size_t>(rows) * weight.width);
    scales_.reserve(groups * sizeof(float));
    sums_.reserve(groups * sizeof(int32_t));
}

void Scratch::reserve(int members, size_t bytes_each) {
    each_ = std::max(each_, (bytes_each + 127) / 128 * 128);
    own_.reserve(each_ * members);
}

void Scratch::reserve_linear(int members, const PackedView& weight, int rows) {
    reserve(members, matmul_scratch(weight, rows));
}

void Scratch::reserve_rows(int members, int width) { reserve(members, sizeof(float) * width); }

void Scratch::reserve_attention(int members, int queries_per_kv, int head_dim) {
    reserve(members, attention_scratch(queries_per_kv, head_dim));
}

namespace {

constexpr int kPiece = 256;  // values of a row that are worth a member's while

// Call body(row, first, last) for pieces of rows, so that one row, too, is work for all.
template <class Body> void over_pieces(const Member& member, int rows, int width, const Body& body) {
    const int64_t pieces = (width + kPiece - 1) / kPiece;
    const Share own = member.share(rows * pieces);
    for (int64_t at = own.first; at < own.last;) {
        const int64_t row = at / pieces, first = at % pieces, last = std::min(pieces, first + own.last - at);
        body(row, first * kPiece, std::min<int64_t>(width, last * kPiece));
        at += last - first;
    }
}

// Call body(row, first, last) for groups of rows.
template <class Body> void over_groups(const Member& member, int rows, int groups, const Body& body) {
    const Share own = member.share(static_cast<int64_t>(rows) * groups);
    for (int64_t at = own.first; at < own.last;) {
        const int64_t row = at / groups, first = at % groups, last = std::min<int64_t>(groups, first + own.last - at);
        body(row, first, last);
        at += last - first;
    }
}

constexpr int64_t kTurnWork = 2048;  // products of an output that are worth taking a panel in turn

// Three quarters of the panels are shared out beforehand, so that members rarely meet over them; the rest goes in turn.
Turns turns_over(const Member& member, const PackedView& weight, int rows, std::atomic<int64_t>& next) {
    const int members = member.team.size();
    const int64_t panels = weight.panels_count;
    const bool worth = members > 1 && static_cast<int64_t>(rows) * weight.inputs >= kTurnWork;
    const int64_t rest = worth ? panels / 4 : 0;
    const Share own = member.share(panels - rest);
    return {own.first, own.last, panels - rest, std::max<int64_t>(1, rest / (8 * members)), &next};
}

float norm_factor(const Member& member, const float* x, int width, float eps) {
    return 1.f / std::sqrt(member.kernels.sum_squares(x, width) / static_cast<float>(width) + eps);
}

// Whether members may share a row that all of them read: what they write must lie apart.
bool in_place(Rows out, Rows x) { return out.data == x.data; }

}  // namespace

void quantise_rows(const Member& member, const Grouping& grouping, Rows x, int rows, const Codes& codes) {
    over_groups(member, rows, grouping.groups, [&](int64_t row, int64_t first, int64_t last) {
        member.kernels.quantise(grouping, x[row], static_cast<int>(row), codes, first, last);
    });
}

void quantised_rows_linear(const Member& member, const PackedView& weight, const Codes& codes, int rows, Rows y,
                           std::atomic<int64_t>& next) {
    member.kernels.matmul_codes(weight, codes, rows, y.data, y.stride, turns_over(member, weight, rows, next),
                                member.scratch.own(member.index));
}

void linear(const Member& member, const PackedView& weight, Rows x, int rows, Rows y, std::atomic<int64_t>& next) {
    if (weight.width > 0) {
        quantise_rows(member, grouping_of(weight), x, rows, member.scratch.codes());
        member.team.barrier();
        quantised_rows_linear(member, weight, member.scratch.codes(), rows, y, next);
        return;
    }
    member.kernels.matmul_float(weight, x.data, x.stride, rows, y.data, y.stride,
                                turns_over(member, weight, rows, next), member.scratch.own(member.index));
}

void rms_norm(const Member& member, Rows x, const float* weight, int rows, int width, float eps, Rows y) {
    if (rows >= member.team.size() || in_place(y, x)) {
        const Share own = member.share(rows);
        for (int64_t r = own.first; r < own.last; ++r)
            member.kernels.scale(x[r], weight, norm_factor(member, x[r], width, eps), width, y[r]);
        return;
    }
    over_pieces(member, rows, width, [&](int64_t r, int64_t first, int64_t last) {
        const float factor = norm_factor(member, x[r], width, eps);
        member.kernels.scale(x[r] + first, weight ? weight + first : nullptr, factor, static_cast<int>(last - first),
                             y[r] + first);
    });
}

void rms_norm_quantise(const Member& member, Rows x, const float* weight, int rows, int width, float eps,
                       const Grouping& grouping, const Codes& codes) {
    float* row = member.scratch.own<float>(member.index);
    over_groups(member, rows, grouping.groups, [&](int64_t r, int64_t first, int64_t last) {
        const float factor = norm_factor(member, x[r], width, eps);
        const int64_t from = first * grouping.group, to = last * grouping.group;
        member.kernels.scale(x[r] + from, weight ? weight + from : nullptr, factor, static_cast<int>(to - from),
                             row + from);
        member.kernels.quantise(grouping, row, static_cast<int>(r), codes, first, last);
    });
}

void add_rms_norm(const Member& member, Rows x, Rows y, const float* weight, int rows, int width, float eps, Rows total,
                  Rows out) {
    float* row = member.scratch.own<float>(member.index);
    if (rows >= member.team.size() || in_place(total, x) || in_place(total, y)) {
        const Share own = member.share(rows);
        for (int64_t r = own.first; r < own.last; ++r) {
            member.kernels.add(x[r], y[r], width, total[r]);
            member.kernels.scale(total[r], weight, norm_factor(member, total[r], width, eps), width, out[r]);
        }
        return;
    }
    over_pieces(member, rows, width, [&](int64_t r, int64_t first, int64_t last) {
        member.kernels.add(x[r], y[r], width, row);
        const float factor = norm_factor(member, row, width, eps);
        std::memcpy(total[r] + first, row + first, sizeof(float) * (last - first));
        member.kernels.scale(row + first, weight ? weight + first : nullptr, factor, static_cast<int>(last - first),
                             out[r] + first);
    });
}

void add_rms_norm_quantise(const Member& member, Rows x, Rows y, const float* weight, int rows, int width, float eps,
                           Rows total, const Grouping& grouping, const Codes& codes) {
    float* row = member.scratch.own<float>(member.index);
    const auto quantise = [&](int64_t r, int64_t first, int64_t last) {
        member.kernels.add(x[r], y[r], width, row);
        const float factor = norm_factor(member, row, width, eps);
        const int64_t from = first * grouping.group, to = last * grouping.group;
        const int count = static_cast<int>(to - from);
        std::memcpy(total[r] + from, row + from, sizeof(float) * count);
        member.kernels.scale(row + from, weight ? weight + from : nullptr, factor, count, row + from);
        member.kernels.quantise(grouping, row, static_cast<int>(r), codes, first, last);
    };
    if (!in_place(total, x) && !in_place(total, y)) {
        over_groups(member, rows, grouping.groups, quantise);
        return;
    }
    const Share own = member.share(rows);
    for (int64_t r = own.first; r < own.last; ++r) quantise(r, 0, grouping.groups);
}

void add(const Member& member, Rows x, Rows y, int rows, int width, Rows out) {
    over_pieces(member, rows, width, [&](int64_t r, int64_t first, int64_t last) {
        member.kernels.add(x[r] + first, y[r] + first, static_cast<int>(last - first), out[r] + first);
    });
}

void mul(const Member& member, Rows x, Rows y, int rows, int width, Rows out) {
    over_pieces(member, rows, width, [&](int64_t r, int64_t first, int64_t last) {
        member.kernels.mul(x[r] + first, y[r] + first, static_cast<int>(last - first), out[r] + first);
    });
}

void silu(const Member& member, Rows x, int rows, int width, Rows out) {
    over_pieces(member, rows, width, [&](int64_t r, int64_t first, int64_t last) {
        member.kernels.silu(x[r] + first, static_cast<int>(last - first), out[r] + first);
    });
}

void silu_mul(const Member& member, Rows gate, Rows up, int rows, int width, Rows out) {
    over_pieces(member, rows, width, [&](int64_t r, int64_t first, int64_t last) {
        member.kernels.silu_mul(gate[r] + first, up[r] + first, static_cast<int>(last - first), out[r] + first);
    });
}

void silu_mul_quantise(const Member& member, Rows gate, Rows up, int rows, int width, const Grouping& grouping,
                       const Codes& codes) {
    float* row = member.scratch.own<float>(member.index);
    (void)width;
    over_groups(member, rows, grouping.groups, [&](int64_t r, int64_t first, int64_t last) {
        const int64_t from = first * grouping.group, to = last * grouping.group;
        member.kernels.silu_mul(gate[r] + from, up[r] + from, static_cast<int>(to - from), row + from);
        member.kernels.quantise(grouping, row, static_cast<int>(r), codes, first, last);
    });
}

void rotary(const Member& member, Rows x, int rows, int heads, int head_dim, int rotary_dims, const float* table,
            const int32_t* positions, Rows y) {
    over_groups(member, rows, heads, [&](int64_t r, int64_t first, int64_t last) {
        member.kernels.rotary(x[r] + first * head_dim, static_cast<int>(last - first), head_dim, rotary_dims,
                              table + static_cast<int64_t>(positions[r]) * rotary_dims, y[r] + first * head_dim);
    });
}

void gather(const Member& member, const Table& table, const int32_t* numbers, int rows, int width, Rows out) {
    over_pieces(member, rows, width, [&](int64_t r, int64_t first, int64_t last) {
        const int64_t number = numbers[r], at = number * width + first;
        const int count = static_cast<int>(last - first);
        if (table.format == Format::bf16)
            member.kernels.widen_bf16(static_cast<const uint16_t*>(table.data) + at, count, out[r] + first);
        else if (table.format == Format::int8)
            member.kernels.widen_int8(static_cast<const int8_t*>(table.data) + at, table.scales[number], count,
                                      out[r] + first);
        else
            std::memcpy(out[r] + first, static_cast<const float*>(table.data) + at, sizeof(float) * count);
    });
}

void gather_packed(const Member& member, const PackedView& matrix, const int32_t* numbers, int rows, Rows out) {
    over_pieces(member, rows, matrix.inputs, [&](int64_t r, int64_t first, int64_t last) {
        if (matrix.width > 0) return gather_codes(matrix, numbers[r], first, last, out[r]);
        const uint8_t* panel = matrix.panels + numbers[r] / kPanel * matrix.panel_bytes + sizeof(PanelHead);
        const int lane = numbers[r] % kPanel;
        float* y = out[r];
        if (matrix.format == Format::fp32) {
            const float* values = reinterpret_cast<const float*>(panel) + lane;
            for (int64_t i = first; i < last; ++i) y[i] = values[i * kPanel];
            return;
        }
        const uint32_t* pairs = reinterpret_cast<const uint32_t*>(panel) + lane;  // the lower input in the lower half
        auto put = [y](int64_t i, uint32_t bits) { std::memcpy(y + i, &bits, sizeof(bits)); };
        if (first % 2 != 0) put(first, pairs[first / 2 * kPanel] & 0xffff0000u);
        for (int64_t i = (first + 1) / 2; i < last / 2; ++i) {
            const uint32_t pair = pairs[i * kPanel];
            put(2 * i, pair << 16);
            put(2 * i + 1, pair & 0xffff0000u);
        }
        if (last % 2 != 0) put(last - 1, pairs[last / 2 * kPanel] << 16);
    });
}

void gather_rows(const Member& member, Rows x, const int32_t* numbers, int rows, int width, Rows out) {
    over_pieces(member, rows, width, [&](int64_t r, int64_t first, int64_t last) {
        std::memcpy(out[r] + first, x[numbers[r]] + first, sizeof(float) * (last - first));
    });
}

}  // namespace autoglm
