// Operators that only programs make, and what measures a processor's limits, on arrays of numpy: for tests and
// benchmarks.
#pragma once

#include "runtime.h"

namespace autoglm {

using namespace nb::literals;

// Rows of codes as Python holds them: values [rows, width of the grouping], scales and sums [rows, groups].
struct CodeArrays {
    Whole<int8_t, 2> values;
    Whole<float, 2> scales;
    Whole<int32_t, 2> sums;

    Codes checked(const Grouping& grouping, size_t rows) const {
        const size_t groups = grouping.groups, width = grouping.width();
        expect(values.shape(0) == rows && values.shape(1) == width, "the codes' values have a wrong shape");
        expect(scales.shape(0) == rows && scales.shape(1) == groups, "the codes' scales have a wrong shape");
        expect(sums.shape(0) == rows && sums.shape(1) == groups, "the codes' sums have a wrong shape");
        return {values.data(), scales.data(), sums.data()};
    }
};

inline Grouping grouping_for(size_t width, int group) {
    expect(width >= 1 && group >= 0 && (group == 0 || width % group == 0), "the groups do not divide the rows");
    return grouping_of(static_cast<int>(width), group);
}

inline void quantise_rows_of(Runtime& team, In x, int group, Whole<int8_t, 2> values, Whole<float, 2> scales,
                             Whole<int32_t, 2> sums) {
    const Grouping grouping = grouping_for(x.shape(1), group);
    const Codes codes = CodeArrays{values, scales, sums}.checked(grouping, x.shape(0));
    const Rows from = rows_of(x, "x");
    const int rows = static_cast<int>(x.shape(0));
    team.region([&](const Member& m) { quantise_rows(m, grouping, from, rows, codes); });
}

inline void quantised_rows_linear_of(Runtime& team, const PackedMatrix& weight, Whole<int8_t, 2> values,
                                     Whole<float, 2> scales, Whole<int32_t, 2> sums, Out out) {
    const PackedView& view = weight.view();
    expect(view.width > 0, "the weight is not int8 or int4");
    const Codes codes = CodeArrays{values, scales, sums}.checked(grouping_of(view), out.shape(0));
    expect(out.shape(1) == static_cast<size_t>(view.outputs), "out has a wrong shape");
    const Rows to = rows_of(out, "out");
    const int rows = static_cast<int>(out.shape(0));
    std::atomic<int64_t> next{0};
    team.region([&](int members, Scratch& scratch) { scratch.reserve_linear(members, view, rows); },
                [&](const Member& m) { quantised_rows_linear(m, view, codes, rows, to, next); });
}

inline void rms_norm_quantise_of(Runtime& team, In x, Whole<const float, 1> weight, float eps, int group,
                                 Whole<int8_t, 2> values, Whole<float, 2> scales, Whole<int32_t, 2> sums) {
    const Grouping grouping = grouping_for(x.shape(1), group);
    expect(weight.shape(0) == x.shape(1), "the norm's weight does not fit x");
    const Codes codes = CodeArrays{values, scales, sums}.checked(grouping, x.shape(0));
    const Rows from = rows_of(x, "x");
    const int rows = static_cast<int>(x.shape(0)), width = grouping.inputs;
    team.region([&](int members, Scratch& scratch) { scratch.reserve_rows(members, width); }, [&](const Member& m) {
        rms_norm_quantise(m, from, weight.data(), rows, width, eps, grouping, codes);
    });
}

inline void add_rms_norm_quantise_of(Runtime& team, In x, In y, Whole<const float, 1> weight, float eps, int group,
                                     Out total, Whole<int8_t, 2> values, Whole<float, 2> scales,
                                     Whole<int32_t, 2> sums) {
    const Grouping grouping = grouping_for(x.shape(1), group);
    expect_same_shape(x, y, "x and y");
    expect_same_shape(x, total, "x and total");
    expect(weight.shape(0) == x.shape(1), "the norm's weight does not fit x");
    const Codes codes = CodeArrays{values, scales, sums}.checked(grouping, x.shape(0));
    const Rows base = rows_of(x, "x"), more = rows_of(y, "y"), to = rows_of(total, "total");
    const int rows = static_cast<int>(x.shape(0)), width = grouping.inputs;
    team.region([&](int members, Scratch& scratch) { scratch.reserve_rows(members, width); }, [&](const Member& m) {
        add_rms_norm_quantise(m, base, more, weight.data(), rows, width, eps, to, grouping, codes);
    });
}

inline void silu_mul_quantise_of(Runtime& team, In gate, In up, int group, Whole<int8_t, 2> values,
                                 Whole<float, 2> scales, Whole<int32_t, 2> sums) {
    const Grouping grouping = grouping_for(gate.shape(1), group);
    expect_same_shape(gate, up, "gate and up");
    const Codes codes = CodeArrays{values, scales, sums}.checked(grouping, gate.shape(0));
    const Rows gates = rows_of(gate, "gate"), ups = rows_of(up, "up");
    const int rows = static_cast<int>(gate.shape(0)), width = grouping.inputs;
    team.region([&](int members, Scratch& scratch) { scratch.reserve_rows(members, width); }, [&](const Member& m) {
        silu_mul_quantise(m, gates, ups, rows, width, grouping, codes);
    });
}

inline void gather_rows_of(Runtime& team, In x, Numbers numbers, Out out) {
    expect(out.shape(0) == numbers.shape(0) && out.shape(1) == x.shape(1), "out has a wrong shape");
    expect_below(numbers, static_cast<int64_t>(x.shape(0)), "a row number lies outside x");
    expect_apart(x, out);
    const Rows from = rows_of(x, "x"), to = rows_of(out, "out");
    const int rows = static_cast<int>(out.shape(0)), width = static_cast<int>(out.shape(1));
    team.region([&](const Member& m) { gather_rows(m, from, numbers.data(), rows, width, to); });
}

// All members do `products` products in registers, of bytes or of fp32; returns how many they did together.
inline int64_t burn_on(Runtime& team, bool bytes, int64_t products) {
    std::atomic<int64_t> done{0};
    team.region([&](const Member& m) { done += (bytes ? m.kernels.burn_int8 : m.kernels.burn_fp32)(products); });
    return done;
}

// All members read their share of an array, `times` over.
inline int64_t walk_over(Runtime& team, Whole<const uint8_t, 1> bytes, int times) {
    std::atomic<int64_t> sum{0};
    team.region([&](const Member& m) {
        const Share own = m.share(static_cast<int64_t>(bytes.shape(0)));
        for (int i = 0; i < times; ++i) sum += m.kernels.walk(bytes.data() + own.first, own.last - own.first);
    });
    return sum;
}

// All members pass `count` barriers.
inline void meet(Runtime& team, int count) {
    team.region([&](const Member& m) {
        for (int i = 0; i < count; ++i) m.team.barrier();
    });
}

inline void bind_fused(nb::class_<Runtime>& team) {
    team.def("quantise_rows", &quantise_rows_of, "x"_a.noconvert(), "group"_a, "values"_a.noconvert(),
             "scales"_a.noconvert(), "sums"_a.noconvert())
        .def("rms_norm_quantise", &rms_norm_quantise_of, "x"_a.noconvert(), "weight"_a.noconvert(), "eps"_a, "group"_a,
             "values"_a.noconvert(), "scales"_a.noconvert(), "sums"_a.noconvert())
        .def("add_rms_norm_quantise", &add_rms_norm_quantise_of, "x"_a.noconvert(), "y"_a.noconvert(),
             "weight"_a.noconvert(), "eps"_a, "group"_a, "total"_a.noconvert(), "values"_a.noconvert(),
             "scales"_a.noconvert(), "sums"_a.noconvert())
        .def("silu_mul_quantise", &silu_mul_quantise_of, "gate"_a.noconvert(), "up"_a.noconvert(), "group"_a,
             "values"_a.noconvert(), "scales"_a.noconvert(), "sums"_a.noconvert())
        .def("gather_rows", &gather_rows_of, "x"_a.noconvert(), "numbers"_a.noconvert(), "out"_a.noconvert())
        .def("burn", &burn_on, "bytes"_a, "products"_a,
             "Products in registers on all threads: what the processor can do.")
        .def("walk", &walk_over, "bytes"_a.noconvert(), "times"_a = 1, "Read an array on all threads.")
        .def("meet", &meet, "count"_a, "Pass barriers.");
}

}  // namespace autoglm
