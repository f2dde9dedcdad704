#include "bind_program.h"

#include <map>
#include <memory>
#include <mutex>

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "core/program.h"
#include "runtime.h"

using namespace nanobind::literals;

namespace autoglm {

namespace {

Format tensor_format(const std::string& name) {
    const Format format = format_of(name);
    expect(format == Format::fp32 || format == Format::bf16, "a tensor is fp32 or bf16");
    return format;
}

// A program, what lends it memory, and the team and cache that it works with.
class BoundProgram {
public:
    BoundProgram(nb::object team, nb::object cache, int max_rows, int max_wanted, int max_positions, size_t arena_bytes)
        : team_(team), cache_(cache),
          program_(nb::cast<Runtime&>(team).team(), nb::cast<Runtime&>(team).kernels(), nb::cast<Cache&>(cache), max_rows,
                   max_wanted, max_positions, arena_bytes) {}

    Program& program() { return program_; }

    void bind_weight(int number, nb::object payload) {
        const auto bytes = nb::cast<Whole<const uint8_t, 1>>(payload, false);
        const std::lock_guard<std::mutex> alone(lock_);
        program_.bind_weight(number, bytes.data(), bytes.shape(0));
        weights_[number] = payload;
    }

    void bind_tensor(int number, nb::object lender) {
        const auto bytes = nb::cast<Whole<const uint8_t, 1>>(lender, false);
        const std::lock_guard<std::mutex> alone(lock_);
        program_.bind_tensor(number, bytes.data(), bytes.shape(0));
        tensors_[number] = lender;
    }

    void step(Numbers ids, Numbers positions, Numbers first_rows, Numbers lengths, Whole<const int32_t, 2> page_table,
              int page_size, Numbers wanted, Whole<float, 2> logits) {
        const StepArgs args = args_of(ids, positions, first_rows, lengths, page_table, page_size, wanted, logits);
        const nb::gil_scoped_release released;
        const std::lock_guard<std::mutex> alone(lock_);
        program_.step(args);
    }

    // As step(), but only begun; what is given must stay alive until the last call of the step has run.
    void begin(Numbers ids, Numbers positions, Numbers first_rows, Numbers lengths, Whole<const int32_t, 2> page_table,
               int page_size, Numbers wanted, Whole<float, 2> logits) {
        const StepArgs args = args_of(ids, positions, first_rows, lengths, page_table, page_size, wanted, logits);
        const std::lock_guard<std::mutex> alone(lock_);
        program_.begin(args);
    }

    void run(int first, int last) {
        const nb::gil_scoped_release released;
        const std::lock_guard<std::mutex> alone(lock_);
        program_.run(first, last);
    }

private:
    StepArgs args_of(const Numbers& ids, const Numbers& positions, const Numbers& first_rows, const Numbers& lengths,
                     const Whole<const int32_t, 2>& page_table, int page_size, const Numbers& wanted,
                     const Whole<float, 2>& logits) const {
        expect(ids.shape(0) == positions.shape(0) && ids.shape(0) < (1u << 24), "ids and positions differ in length");
        expect(logits.shape(0) == wanted.shape(0) && wanted.shape(0) < (1u << 24), "logits do not fit wanted");
        expect(logits.shape(1) == static_cast<size_t>(program_.logits_width()), "logits do not fit the vocabulary");
        expect(first_rows.shape(0) == lengths.shape(0) + 1 && page_table.shape(0) == lengths.shape(0) &&
                   lengths.shape(0) < (1u << 24), "first_rows, lengths and page_table do not fit each other");
        return {ids.data(), positions.data(), wanted.data(), static_cast<int>(ids.shape(0)),
                static_cast<int>(wanted.shape(0)), first_rows.data(), lengths.data(), page_table.data(),
                static_cast<int>(lengths.shape(0)), static_cast<int64_t>(page_table.shape(1)), page_size, logits.data()};
    }

    nb::object team_, cache_;
    Program program_;
    std::mutex lock_;
    std::map<int, nb::object> weights_, tensors_;  // who lends the bytes
};

Place make_place(const std::string& space, bool wanted, int64_t offset, int64_t stride, int width, int group) {
    return {space_of(space), wanted ? Extent::wanted : Extent::rows, offset, stride, width, group};
}

void set_kernel(Call& call, nb::capsule capsule) {
    expect(capsule.name() != nullptr && std::string(capsule.name()) == AUTOGLM_KERNEL_NAME,
           "a kernel is a capsule named '" AUTOGLM_KERNEL_NAME "'");
    call.kernel = reinterpret_cast<autoglm_kernel>(capsule.data());
}

}  // namespace

void bind_program(nb::module_& m) {
    nb::class_<Place>(m, "Place", "Where rows of values lie.")
        .def(nb::new_([](const std::string& space, bool wanted, int64_t offset, int64_t stride, int width, int group) {
            return new Place(make_place(space, wanted, offset, stride, width, group));
        }), "space"_a, "wanted"_a = false, "offset"_a = 0, "stride"_a = 0, "width"_a = 0, "group"_a = 0);
    nb::class_<Call>(m, "Call", "One operator call.")
        .def(nb::new_([](const std::string& kind) { auto* call = new Call; call->kind = kind_of(kind); return call; }),
             "kind"_a)
        .def_rw("barrier", &Call::barrier)
        .def_rw("inputs", &Call::inputs)
        .def_rw("outputs", &Call::outputs)
        .def_rw("weight", &Call::weight)
        .def_rw("tensor", &Call::tensor)
        .def_rw("table", &Call::table)
        .def_rw("eps", &Call::eps)
        .def_rw("scale", &Call::scale)
        .def_rw("head_dim", &Call::head_dim)
        .def_rw("layer", &Call::layer)
        .def_rw("names", &Call::names)
        .def_rw("values", &Call::values)
        .def("set_kernel", &set_kernel, "capsule"_a);
    nb::class_<Crew>(m, "Crew", "Whether the whole team does a step, or its caller alone.")
        .def(nb::init<>())
        .def("alone", &Crew::alone, "rows"_a)
        .def("took", &Crew::took, "rows"_a, "alone"_a, "seconds"_a);
    nb::class_<BoundProgram>(m, "Program", "Operator calls on places of one arena.")
        .def(nb::init<nb::object, nb::object, int, int, int, size_t>(), "team"_a, "cache"_a, "max_rows"_a,
             "max_wanted"_a, "max_positions"_a, "arena_bytes"_a)
        .def("declare_weight", [](BoundProgram& p, const std::string& format, int64_t outputs, int64_t inputs, int64_t group,
                                  bool symmetric) {
            return p.program().declare_weight(shape_packed(format_of(format), !symmetric, outputs, inputs, group));
        }, "format"_a, "outputs"_a, "inputs"_a, "group"_a = 0, "symmetric"_a = true)
        .def("declare_tensor", [](BoundProgram& p, const std::string& format, int64_t rows, int64_t columns) {
            return p.program().declare_tensor(tensor_format(format), rows, columns);
        }, "format"_a, "rows"_a, "columns"_a)
        .def("declare_table", [](BoundProgram& p, double theta, int dims) { return p.program().declare_table(theta, dims); },
             "theta"_a, "dims"_a)
        .def("add", [](BoundProgram& p, const Call& call) { p.program().add(call); }, "call"_a)
        .def("bind_weight", &BoundProgram::bind_weight, "number"_a, "payload"_a)
        .def("bind_tensor", &BoundProgram::bind_tensor, "number"_a, "bytes"_a)
        .def_prop_ro("size", [](BoundProgram& p) { return p.program().size(); })
        .def_prop_ro("arena_bytes", [](BoundProgram& p) { return p.program().arena_bytes(); })
        .def_prop_ro("scratch_bytes", [](BoundProgram& p) { return p.program().scratch_bytes(); })
        .def_prop_ro("table_bytes", [](BoundProgram& p) { return p.program().table_bytes(); })
        .def("measure_threads", [](BoundProgram& p) { p.program().measure_threads(); })
        .def_prop_ro("steps_alone", [](BoundProgram& p) { return p.program().crew().steps_alone(); })
        .def("step", &BoundProgram::step, "ids"_a.noconvert(), "positions"_a.noconvert(), "first_rows"_a.noconvert(),
             "lengths"_a.noconvert(), "page_table"_a.noconvert(), "page_size"_a, "wanted"_a.noconvert(),
             "logits"_a.noconvert())
        .def("begin", &BoundProgram::begin, "ids"_a.noconvert(), "positions"_a.noconvert(), "first_rows"_a.noconvert(),
             "lengths"_a.noconvert(), "page_table"_a.noconvert(), "page_size"_a, "wanted"_a.noconvert(),
             "logits"_a.noconvert())
        .def("run", &BoundProgram::run, "first"_a, "last"_a);
}

}  // namespace autoglm
