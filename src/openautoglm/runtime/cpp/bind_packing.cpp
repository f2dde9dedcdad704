#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <tuple>

#include "bind_program.h"
#include "core/packing.h"
#include "runtime.h"

using namespace nanobind::literals;

namespace autoglm {

namespace {

using Matrix = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Facts = std::tuple<std::string, int, int, int, bool>;

const char* name_of(Format format) {
    constexpr const char* names[] = {"", "fp32", "bf16", "int8", "int4"};
    return names[static_cast<int>(format)];
}

Facts facts_of(const PackedView& view) { return {name_of(view.format), view.outputs, view.inputs, view.group, !view.zeros}; }

PackPart part_of(const Matrix& part, const PackedView& view) {
    const bool bf16 = part.dtype() == nb::dtype<uint16_t>();
    expect(bf16 || part.dtype() == nb::dtype<float>(), "parts are fp32, or bf16 as uint16");
    expect(part.shape(1) == static_cast<size_t>(view.inputs), "a part has another number of columns than the matrix");
    return {part.data(), bf16, static_cast<int64_t>(part.shape(0))};
}

// Pack into `out`, header and all.
void pack(Runtime& team, const std::vector<Matrix>& parts, const std::string& format, int64_t group, bool symmetric,
          std::optional<Whole<const float, 1>> bias, Whole<uint8_t, 1> out) {
    int64_t outputs = 0;
    expect(!parts.empty(), "nothing to pack");
    for (const Matrix& part : parts) outputs += static_cast<int64_t>(part.shape(0));
    const PackedView view = shape_packed(format_of(format), !symmetric, outputs, static_cast<int64_t>(parts[0].shape(1)), group);
    expect(out.shape(0) == sizeof(PackedHeader) + payload_bytes(view), "out has a wrong size");
    expect(!bias || bias->shape(0) == static_cast<size_t>(outputs), "the bias does not fit");
    PackArgs args{view, {}, bias ? bias->data() : nullptr, out.data() + sizeof(PackedHeader)};
    for (const Matrix& part : parts) args.parts.push_back(part_of(part, view));
    const PackedHeader header = header_of(view);
    std::memcpy(out.data(), &header, sizeof(header));
    std::atomic<int64_t> next{0};
    std::atomic<bool> finite{true};
    const size_t each = pack_scratch(view);
    {
        const nb::gil_scoped_release released;
        const Memory scratch(each * sizeof(float) * static_cast<size_t>(team.threads()));
        team.team().run([&](int member) {
            if (!pack_panels(args, next, scratch.as<float>() + each * static_cast<size_t>(member))) finite = false;
        });
    }
    if (!finite) throw std::domain_error("a value is not finite");
}

using StoredTuple = std::tuple<Whole<const uint8_t, 2>, Whole<const uint16_t, 2>, Whole<const float, 1>,
                              std::optional<Whole<const uint8_t, 2>>>;

StoredPart stored_part_of(const StoredTuple& part, const PackedView& view) {
    const auto& [codes, shares, scales, zeros] = part;
    const size_t count = codes.shape(0), groups = static_cast<size_t>(view.groups);
    const int columns = view.format == Format::int8 ? view.inputs : (view.inputs + 1) / 2;
    expect(codes.shape(1) == static_cast<size_t>(columns) && shares.shape(0) == count && shares.shape(1) == groups &&
               scales.shape(0) == count, "codes and scales do not fit the matrix");
    expect(zeros.has_value() == view.zeros && (!zeros || (zeros->shape(0) == count && zeros->shape(1) == groups)),
           "zero points do not fit the matrix");
    return {codes.data(), shares.data(), scales.data(), zeros ? zeros->data() : nullptr, static_cast<int64_t>(count)};
}

// Pack codes as they are stored into `out`, header and all.
void pack_codes(Runtime& team, const std::vector<StoredTuple>& parts, const std::string& format, int64_t inputs,
                int64_t group, bool symmetric, std::optional<Whole<const float, 1>> bias, Whole<uint8_t, 1> out) {
    int64_t outputs = 0;
    for (const StoredTuple& part : parts) outputs += static_cast<int64_t>(std::get<0>(part).shape(0));
    const PackedView view = shape_packed(format_of(format), !symmetric, outputs, inputs, group);
    expect(view.width > 0, "codes are int8 or int4");
    expect(out.shape(0) == sizeof(PackedHeader) + payload_bytes(view), "out has a wrong size");
    expect(!bias || bias->shape(0) == static_cast<size_t>(outputs), "the bias does not fit");
    StoredArgs args{view, {}, bias ? bias->data() : nullptr, out.data() + sizeof(PackedHeader)};
    for (const StoredTuple& part : parts) args.parts.push_back(stored_part_of(part, view));
    const PackedHeader header = header_of(view);
    std::memcpy(out.data(), &header, sizeof(header));
    std::atomic<int64_t> next{0};
    const nb::gil_scoped_release released;
    team.team().run([&](int) { pack_stored(args, next); });
}

}  // namespace

void bind_packing(nb::module_& m) {
    m.def("packed_bytes", [](const std::string& format, int64_t outputs, int64_t inputs, int64_t group, bool symmetric) {
        return sizeof(PackedHeader) + payload_bytes(shape_packed(format_of(format), !symmetric, outputs, inputs, group));
    }, "format"_a, "outputs"_a, "inputs"_a, "group"_a = 0, "symmetric"_a = true, "Bytes of a packed matrix, header included.");
    m.def("check_packed", [](Whole<const uint8_t, 1> header, size_t bytes) {
        return facts_of(view_header(header.data(), header.shape(0), bytes));
    }, "header"_a.noconvert(), "bytes"_a, "Check a header against the bytes of its matrix: format, outputs, inputs, group, symmetric.");
    m.def("pack", &pack, "team"_a, "parts"_a, "format"_a, "group"_a, "symmetric"_a, "bias"_a.none(), "out"_a.noconvert(),
          "Round and pack a matrix, given as parts one under the other.");
    m.def("pack_codes", &pack_codes, "team"_a, "parts"_a, "format"_a, "inputs"_a, "group"_a, "symmetric"_a, "bias"_a.none(),
          "out"_a.noconvert(), "Pack codes, fp16 shares, row scales and zero points (or None) as they are.");
    nb::class_<Memory>(m, "Block", "Memory on large pages, zeroed.")
        .def(nb::init<size_t>(), "bytes"_a)
        .def_prop_ro("array", [](nb::handle self) {
            Memory& memory = nb::cast<Memory&>(self);
            return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(memory.data(), {memory.size()}, self);
        }, "The bytes; they keep the block alive.");
}

}  // namespace autoglm
