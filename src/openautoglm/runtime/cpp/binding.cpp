// What Python sees: a team of threads, packed matrices, the cache, operators on arrays of numpy, and programs.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "fused.h"
#include "bind_program.h"
#include "runtime.h"

using namespace nanobind::literals;

namespace autoglm {

namespace {

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
    expect(format == "fp32" || format == "bf16" || format == "int8", "a cache is fp32, bf16 or int8");
    const CacheFormat as = format == "fp32" ? CacheFormat::fp32 : format == "bf16" ? CacheFormat::bf16 : CacheFormat::int8;
    return new Cache(layers, pages, page_size, kv_heads, head_dim, as);
}

}  // namespace

}  // namespace autoglm

NB_MODULE(_native, m) {
    using namespace autoglm;
    m.doc() = "Kernels of the native runtime.";
    m.attr("interface") = 3;  // as in native.py
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
    nb::class_<Runtime> team(m, "Team", "Threads and the kernels that they run.");
    bind_fused(team);
    team.def("quantised_rows_linear", [](Runtime& runtime, const Packed& w, Whole<int8_t, 2> values, Whole<float, 2> scales,
                                         Whole<int32_t, 2> sums, Out out) {
        quantised_rows_linear_of(runtime, w.matrix, values, scales, sums, out);
    }, "weight"_a, "values"_a.noconvert(), "scales"_a.noconvert(), "sums"_a.noconvert(), "out"_a.noconvert());
    team.def(nb::init<int, const std::string&, std::vector<int>, int>(), "threads"_a = 1, "isa"_a = "",
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
        .def("sample", &Runtime::sample, "logits"_a.noconvert(), "temperature"_a.noconvert(), "top_k"_a.noconvert(),
             "top_p"_a.noconvert(), "min_p"_a.noconvert(), "uniforms"_a.noconvert(), "ids"_a.noconvert(),
             "logprobs"_a.noconvert())
        .def("gather_fp32", &Runtime::gather_fp32, "table"_a.noconvert(), "numbers"_a.noconvert(), "out"_a.noconvert())
        .def("gather_bf16", &Runtime::gather_bf16, "table"_a.noconvert(), "numbers"_a.noconvert(), "out"_a.noconvert())
        .def("gather_int8", &Runtime::gather_int8, "table"_a.noconvert(), "scales"_a.noconvert(), "numbers"_a.noconvert(),
             "out"_a.noconvert())
        .def("attention", &Runtime::attention, "cache"_a, "layer"_a, "q"_a.noconvert(), "k"_a.noconvert(),
             "v"_a.noconvert(), "first_rows"_a.noconvert(), "lengths"_a.noconvert(), "page_table"_a.noconvert(), "scale"_a,
             "out"_a.noconvert());
    bind_packing(m);
    bind_program(m);
}
