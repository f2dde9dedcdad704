// What Python sees: a team of threads, packed matrices, the cache, and each operator on arrays of numpy. Every size is
// checked here, before the interpreter's lock is given back and a kernel runs.

#include <stdexcept>
#include <string>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "core/operators.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace autoglm {

namespace {

template <class T, int dims> using Array = nb::ndarray<T, nb::ndim<dims>, nb::device::cpu>;
template <class T, int dims> using Whole = nb::ndarray<T, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;
using In = Array<const float, 2>;
using Out = Array<float, 2>;
using Numbers = Whole<const int32_t, 1>;

void expect(bool holds, const std::string& fault) {
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

void expect_apart(const In& x, const Out& y) {
    const float *x_end = x.data() + x.shape(0) * x.stride(0), *y_end = y.data() + y.shape(0) * y.stride(0);
    expect(x_end <= y.data() || y_end <= x.data(), "x and out must not overlap");
}

void expect_below(const Numbers& numbers, int64_t limit, const char* fault) {
    for (size_t i = 0; i < numbers.shape(0); ++i) expect(numbers.data()[i] >= 0 && numbers.data()[i] < limit, fault);
}

// The team of Python: threads, the kernels of one instruction path, and their scratch. One operator at a time.
class Runtime {
public:
    Runtime(int threads, const std::string& isa, std::vector<int> cpus, int nice)
        : isa_(choose_isa(isa)), kernels_(kernels_for(isa_)), team_(threads, std::move(cpus), nice) {}

    int threads() const { return team_.size(); }
    std::string isa() const { return name_of(isa_); }

    void linear(const PackedMatrix& weight, In x, Out out) {
        const PackedView& view = weight.view();
        expect(x.shape(1) == static_cast<size_t>(view.inputs), "x has " + std::to_string(x.shape(1)) +
               " columns, the weight " + std::to_string(view.inputs) + " inputs");
        expect(out.shape(0) == x.shape(0) && out.shape(1) == static_cast<size_t>(view.outputs), "out has a wrong shape");
        expect_apart(x, out);
        const Rows from = rows_of(x, "x"), to = rows_of(out, "out");
        const int rows = static_cast<int>(x.shape(0));
        region([&] { scratch_.reserve_codes(view, rows); },
               [&](const Member& member) { autoglm::linear(member, view, from, rows, to); });
    }

    void rms_norm(In x, Whole<const float, 1> weight, float eps, Out out) {
        expect_same_shape(x, out, "x and out");
        expect(weight.shape(0) == x.shape(1), "the norm's weight does not fit x");
        const Rows from = rows_of(x, "x"), to = rows_of(out, "out");
        const int rows = static_cast<int>(x.shape(0)), width = static_cast<int>(x.shape(1));
        region([&](const Member& m) { autoglm::rms_norm(m, from, weight.data(), rows, width, eps, to); });
    }

    void add_rms_norm(Out x, In y, Whole<const float, 1> weight, float eps, Out out) {
        expect_same_shape(x, y, "x and y");
        expect_same_shape(x, out, "x and out");
        expect(weight.shape(0) == x.shape(1), "the norm's weight does not fit x");
        const Rows base = rows_of(x, "x"), more = rows_of(y, "y"), to = rows_of(out, "out");
        const int rows = static_cast<int>(x.shape(0)), width = static_cast<int>(x.shape(1));
        region([&](const Member& m) { autoglm::add_rms_norm(m, base, more, weight.data(), rows, width, eps, to); });
    }

    void rotary(Out x, Numbers positions, Whole<const float, 2> table, int head_dim) {
        const Rows rows = rows_of(x, "x");
        const int dims = static_cast<int>(table.shape(1));
        expect(head_dim >= 1 && x.shape(1) % head_dim == 0, "x does not consist of heads of head_dim");
        expect(dims % 2 == 0 && dims <= head_dim, "the table turns an even number of dimensions, at most head_dim");
        expect(positions.shape(0) == x.shape(0), "a position is needed for every row");
        expect_below(positions, static_cast<int64_t>(table.shape(0)), "a position lies outside the table");
        const int count = static_cast<int>(x.shape(0)), heads = static_cast<int>(x.shape(1)) / head_dim;
        region([&](const Member& m) {
            autoglm::rotary(m, rows, count, heads, head_dim, dims, table.data(), positions.data());
        });
    }

    void silu_mul(In gate, In up, Out out) {
        expect_same_shape(gate, up, "gate and up");
        expect_same_shape(gate, out, "gate and out");
        const Rows gates = rows_of(gate, "gate"), ups = rows_of(up, "up"), to = rows_of(out, "out");
        const int rows = static_cast<int>(gate.shape(0)), width = static_cast<int>(gate.shape(1));
        region([&](const Member& m) { autoglm::silu_mul(m, gates, ups, rows, width, to); });
    }

    void gather_fp32(Whole<const float, 2> table, Numbers numbers, Out out) {
        take({Format::fp32, table.data(), nullptr, static_cast<int64_t>(table.shape(0))}, table.shape(1), numbers, out);
    }
    void gather_bf16(Whole<const uint16_t, 2> table, Numbers numbers, Out out) {
        take({Format::bf16, table.data(), nullptr, static_cast<int64_t>(table.shape(0))}, table.shape(1), numbers, out);
    }
    void gather_int8(Whole<const int8_t, 2> table, Whole<const float, 1> scales, Numbers numbers, Out out) {
        expect(scales.shape(0) == table.shape(0), "a scale is needed for every row of the table");
        take({Format::int8, table.data(), scales.data(), static_cast<int64_t>(table.shape(0))}, table.shape(1), numbers, out);
    }

    void attention(Cache& cache, int layer, In q, In k, In v, Numbers first_rows, Numbers lengths,
                   Whole<const int32_t, 2> page_table, float scale, Out out) {
        expect(layer >= 0 && layer < cache.layers(), "the cache has no such layer");
        const CacheView& view = cache.view(layer);
        const size_t kv_width = static_cast<size_t>(view.kv_heads) * view.head_dim;
        expect(q.shape(1) > 0 && q.shape(1) % kv_width == 0, "the heads of q are no multiple of the cache's kv heads");
        expect_same_shape(q, out, "q and out");
        expect_same_shape(k, v, "k and v");
        expect(k.shape(0) == q.shape(0) && k.shape(1) == kv_width, "k and v do not fit q or the cache");
        expect(first_rows.shape(0) == lengths.shape(0) + 1 && page_table.shape(0) == lengths.shape(0),
               "first_rows, lengths and page_table do not fit each other");
        const int rows = static_cast<int>(q.shape(0)), heads = static_cast<int>(q.shape(1)) / view.head_dim;
        const Rows queries = rows_of(q, "q"), keys = rows_of(k, "k"), values = rows_of(v, "v"), to = rows_of(out, "out");
        expect_apart(q, out);
        const Layout layout = lay_out(first_rows.data(), lengths.data(), page_table.data(),
                                      static_cast<int>(lengths.shape(0)), static_cast<int64_t>(page_table.shape(1)),
                                      rows, view.pages, view.page_size);
        const AttentionArgs args{view, queries.data, to.data, heads, queries.stride, to.stride, scale};
        std::atomic<int64_t> next{0};
        region([&] { scratch_.reserve_attention(team_.size(), heads / view.kv_heads, view.page_size); },
               [&](const Member& member) {
                   write_cache(member, view, layout, keys, values);
                   member.team.barrier();
                   attend(member, args, layout, next);
               });
    }

private:
    void take(const Table& table, size_t width, const Numbers& numbers, const Out& out) {
        expect(out.shape(0) == numbers.shape(0) && out.shape(1) == width, "out has a wrong shape");
        expect_below(numbers, table.entries, "a row number lies outside the table");
        const Rows to = rows_of(out, "out");
        const int rows = static_cast<int>(out.shape(0));
        region([&](const Member& m) { gather(m, table, numbers.data(), rows, static_cast<int>(width), to); });
    }

    template <class Reserve, class Body> void region(const Reserve& reserve, const Body& body) {
        nb::gil_scoped_release released;
        std::lock_guard<std::mutex> alone(scratch_lock_);
        reserve();
        team_.run([&](int index) { body(Member{team_, kernels_, scratch_, index}); });
    }
    template <class Body> void region(const Body& body) { region([] {}, body); }

    const Isa isa_;
    const Kernels& kernels_;
    Team team_;
    Scratch scratch_;
    std::mutex scratch_lock_;
};

std::vector<std::string> supported_names() {
    std::vector<std::string> names;
    for (Isa isa : supported_isas()) names.emplace_back(name_of(isa));
    return names;
}

// A packed matrix and, when it was not copied, the array that lends its bytes.
struct Packed {
    Whole<const uint8_t, 1> lender;
    PackedMatrix matrix;
    Packed(Whole<const uint8_t, 1> bytes, bool copy)
        : lender(copy ? Whole<const uint8_t, 1>() : bytes), matrix(bytes.data(), bytes.shape(0), copy) {}
};

Cache* make_cache(int layers, int pages, int page_size, int kv_heads, int head_dim, const std::string& format) {
    expect(format == "bf16" || format == "int8", "a cache is bf16 or int8");
    return new Cache(layers, pages, page_size, kv_heads, head_dim, format == "int8");
}

}  // namespace

}  // namespace autoglm

NB_MODULE(_native, m) {
    using namespace autoglm;
    m.doc() = "Kernels of the native runtime.";
    m.attr("interface") = 1;  // as in native.py
    m.def("choose_isa", [](const std::string& asked) { return std::string(name_of(choose_isa(asked))); }, "asked"_a = "",
          "The instruction path that runs, best first, or the one that is asked for.");
    m.def("supported_isas", &supported_names, "Instruction paths that run here, the best last.");
    nb::class_<Packed>(m, "Packed", "A packed matrix, checked; copied into memory of its own, or lent.")
        .def(nb::init<Whole<const uint8_t, 1>, bool>(), "bytes"_a.noconvert(), "copy"_a = true)
        .def_prop_ro("outputs", [](const Packed& p) { return p.matrix.view().outputs; })
        .def_prop_ro("inputs", [](const Packed& p) { return p.matrix.view().inputs; })
        .def_prop_ro("group", [](const Packed& p) { return p.matrix.view().group; });
    nb::class_<Cache>(m, "Cache", "Pages of keys and values.")
        .def(nb::new_(&make_cache), "layers"_a, "pages"_a, "page_size"_a, "kv_heads"_a, "head_dim"_a, "format"_a = "bf16")
        .def_prop_ro("bytes", &Cache::bytes)
        .def("copy_page", [](Cache& cache, int from, int to) {
            const int pages = cache.view(0).pages;
            expect(from >= 0 && from < pages && to >= 0 && to < pages, "a page lies outside the cache");
            cache.copy_page(from, to);
        }, "source"_a, "target"_a);
    nb::class_<Runtime>(m, "Team", "Threads and the kernels that they run.")
        .def(nb::init<int, const std::string&, std::vector<int>, int>(), "threads"_a = 1, "isa"_a = "",
             "cpus"_a = std::vector<int>(), "nice"_a = 0)
        .def_prop_ro("threads", &Runtime::threads)
        .def_prop_ro("isa", &Runtime::isa)
        .def("linear", [](Runtime& team, const Packed& w, In x, Out out) { team.linear(w.matrix, x, out); },
             "weight"_a, "x"_a.noconvert(), "out"_a.noconvert())
        .def("rms_norm", &Runtime::rms_norm, "x"_a.noconvert(), "weight"_a.noconvert(), "eps"_a, "out"_a.noconvert())
        .def("add_rms_norm", &Runtime::add_rms_norm, "x"_a.noconvert(), "y"_a.noconvert(), "weight"_a.noconvert(), "eps"_a,
             "out"_a.noconvert())
        .def("rotary", &Runtime::rotary, "x"_a.noconvert(), "positions"_a.noconvert(), "table"_a.noconvert(), "head_dim"_a)
        .def("silu_mul", &Runtime::silu_mul, "gate"_a.noconvert(), "up"_a.noconvert(), "out"_a.noconvert())
        .def("gather_fp32", &Runtime::gather_fp32, "table"_a.noconvert(), "numbers"_a.noconvert(), "out"_a.noconvert())
        .def("gather_bf16", &Runtime::gather_bf16, "table"_a.noconvert(), "numbers"_a.noconvert(), "out"_a.noconvert())
        .def("gather_int8", &Runtime::gather_int8, "table"_a.noconvert(), "scales"_a.noconvert(), "numbers"_a.noconvert(),
             "out"_a.noconvert())
        .def("attention", &Runtime::attention, "cache"_a, "layer"_a, "q"_a.noconvert(), "k"_a.noconvert(),
             "v"_a.noconvert(), "first_rows"_a.noconvert(), "lengths"_a.noconvert(), "page_table"_a.noconvert(), "scale"_a,
             "out"_a.noconvert());
}
