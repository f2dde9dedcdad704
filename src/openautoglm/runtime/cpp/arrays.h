// Arrays of numpy as operators take them, and their checks.
#pragma once

#include <stdexcept>
#include <string>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "core/operators.h"

namespace autoglm {

namespace nb = nanobind;

template <class T, int dims> using Array = nb::ndarray<T, nb::ndim<dims>, nb::device::cpu>;
template <class T, int dims> using Whole = nb::ndarray<T, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;
using In = Array<const float, 2>;
using Out = Array<float, 2>;
using Numbers = Whole<const int32_t, 1>;

inline void expect(bool holds, const std::string& fault) {
    if (!holds) throw std::invalid_argument(fault);
}

// Rows of a matrix whose columns are neighbours; it may be a slice of columns of a wider one.
template <class A> Rows rows_of(const A& matrix, const char* name) {
    const bool neighbours = matrix.shape(1) <= 1 || matrix.stride(1) == 1;
    const bool apart = matrix.shape(0) <= 1 || matrix.stride(0) >= static_cast<int64_t>(matrix.shape(1));
    expect(neighbours && apart, std::string(name) + " must lie row after row");
    expect(matrix.shape(0) < (1u << 30) && matrix.shape(1) < (1u << 30), std::string(name) + " is too large");
    return {const_cast<float*>(matrix.data()), matrix.stride(0)};
}

template <class A, class B> void expect_same_shape(const A& a, const B& b, const char* names) {
    expect(a.shape(0) == b.shape(0) && a.shape(1) == b.shape(1), std::string(names) + " differ in shape");
}

// The end of the last row: what the stride leaves behind it may belong to another array.
template <class A> const float* end_of(const A& matrix) {
    return matrix.shape(0) == 0 ? matrix.data()
                                : matrix.data() + (matrix.shape(0) - 1) * matrix.stride(0) + matrix.shape(1);
}

inline void expect_apart(const In& x, const Out& y) {
    expect(end_of(x) <= y.data() || end_of(y) <= x.data(), "x and out must not overlap");
}

inline void expect_below(const Numbers& numbers, int64_t limit, const char* fault) {
    for (size_t i = 0; i < numbers.shape(0); ++i) expect(numbers.data()[i] >= 0 && numbers.data()[i] < limit, fault);
}

}  // namespace autoglm
