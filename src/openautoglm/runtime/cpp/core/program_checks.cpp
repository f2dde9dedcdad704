// What a call must be before a program takes it: afterwards nothing can reach outside the arena.
#include <stdexcept>
#include <string>

#include "core/program.h"

namespace autoglm {

namespace {

void expect(bool holds, const std::string& fault) {
    if (!holds) throw std::invalid_argument("a call of a program: " + fault);
}

struct Name {
    const char* name;
    Kind kind;
    int least, most, outputs;  // how many inputs and outputs
};

constexpr Name kNames[] = {
    {"embedding", Kind::embedding, 1, 1, 1},
    {"gather_rows", Kind::gather_rows, 2, 2, 1},
    {"linear", Kind::linear, 1, 1, 1},
    {"quantised_rows_linear", Kind::quantised_rows_linear, 1, 1, 1},
    {"quantise_rows", Kind::quantise_rows, 1, 1, 1},
    {"rms_norm", Kind::rms_norm, 1, 1, 1},
    {"rms_norm_quantise", Kind::rms_norm_quantise, 1, 1, 1},
    {"add_rms_norm", Kind::add_rms_norm, 2, 2, 2},
    {"add_rms_norm_quantise", Kind::add_rms_norm_quantise, 2, 2, 2},
    {"add", Kind::add, 2, 2, 1},
    {"mul", Kind::mul, 2, 2, 1},
    {"silu", Kind::silu, 1, 1, 1},
    {"silu_mul", Kind::silu_mul, 2, 2, 1},
    {"silu_mul_quantise", Kind::silu_mul_quantise, 2, 2, 1},
    {"rotary", Kind::rotary, 2, 2, 1},
    {"attention", Kind::attention, 3, 3, 1},
    {"plugin", Kind::plugin, 0, kMostPlaces, kMostPlaces},
};

const Name& entry_of(Kind kind) {
    for (const Name& entry : kNames)
        if (entry.kind == kind) return entry;
    throw std::invalid_argument("unknown kind of call");
}

bool is_rows(const Place& place) { return place.space == Space::arena || place.space == Space::logits; }

bool is_numbers(const Place& place) {
    return place.space == Space::ids || place.space == Space::positions || place.space == Space::wanted;
}

}  // namespace

Kind kind_of(const std::string& name) {
    for (const Name& entry : kNames)
        if (name == entry.name) return entry.kind;
    throw std::invalid_argument("no call is named '" + name + "'");
}

Space space_of(const std::string& name) {
    constexpr const char* names[] = {"arena", "codes", "logits", "ids", "positions", "wanted", "tensor"};
    for (int i = 0; i < 7; ++i)
        if (name == names[i]) return static_cast<Space>(i);
    throw std::invalid_argument("no space is named '" + name + "'");
}

size_t codes_bytes(int rows, const Grouping& grouping) {
    auto line = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
    const size_t groups = static_cast<size_t>(rows) * grouping.groups;
    return line(static_cast<size_t>(rows) * grouping.width()) + 2 * line(groups * 4);
}

void Program::check_place(const Place& place) const {
    if (is_numbers(place)) return;
    if (place.space == Space::tensor)
        return expect(place.offset >= 0 && place.offset < static_cast<int64_t>(tensors_.size()), "no such tensor");
    expect(place.width >= 1 && place.width < (1 << 30) && place.offset >= 0, "a value without a width or a place");
    const int rows = most(place.extent);
    if (place.space == Space::codes) {
        expect(place.group >= 0 && place.width % (place.group == 0 ? place.width : place.group) == 0, "groups do not fit");
        const size_t bytes = codes_bytes(rows, grouping_of(place.width, place.group));
        expect(place.offset % 64 == 0 && bytes <= arena_.size() && place.offset <= static_cast<int64_t>(arena_.size() - bytes),
               "codes lie outside the arena");
        return;
    }
    expect(place.stride >= place.width && place.stride < (1 << 30), "rows overlap");
    if (place.space == Space::logits) {
        expect(place.extent == Extent::wanted && place.offset + place.width <= place.stride, "logits lie outside theirs");
        expect(logits_width_ == 0 || logits_width_ == place.stride, "logits of different widths");
        return;
    }
    const int64_t bytes = ((rows - 1) * place.stride + place.width) * 4;
    expect(place.offset % 4 == 0 && place.offset + bytes <= static_cast<int64_t>(arena_.size()), "lies outside the arena");
}

void Program::check_resources(const Call& call) const {
    const Name& entry = entry_of(call.kind);
    const int inputs = static_cast<int>(call.inputs.size()), outputs = static_cast<int>(call.outputs.size());
    expect(inputs >= entry.least && inputs <= entry.most, std::string(entry.name) + " with a wrong number of inputs");
    expect(call.kind == Kind::plugin ? outputs >= 1 && outputs <= entry.outputs : outputs == entry.outputs,
           std::string(entry.name) + " with a wrong number of outputs");
    auto among = [](int number, size_t count) { return number >= -1 && number < static_cast<int>(count); };
    expect(among(call.weight, weights_.size()) && among(call.tensor, tensors_.size()) && among(call.table, tables_.size()),
           "no such weight, tensor or table");
    for (const Place& place : call.outputs)
        expect(is_rows(place) || (place.space == Space::codes && call.kind != Kind::plugin), "an output has no place");
}

void Program::check_shapes(const Call& call) const {
    const auto& in = call.inputs;
    const auto& out = call.outputs;
    auto rows = [&](int width, std::initializer_list<const Place*> places) {
        for (const Place* place : places)
            expect(is_rows(*place) && place->width == width && place->extent == out[0].extent, "values differ in shape");
    };
    auto codes = [&](const Place& place, int width) {
        expect(place.space == Space::codes && place.width == width && place.extent == out[0].extent, "codes do not fit");
    };
    auto norm = [&](int width) {
        if (call.tensor >= 0)
            expect(tensors_[call.tensor].format == Format::fp32 && tensors_[call.tensor].rows == 1 &&
                       tensors_[call.tensor].columns == width, "a norm's weight does not fit");
    };
    const int width = out[0].width, first = in.empty() ? 0 : in[0].width;
    switch (call.kind) {
        case Kind::embedding:
            expect(in[0].space == Space::ids && (call.tensor >= 0) != (call.weight >= 0), "an embedding takes one table");
            expect((call.weight >= 0 ? weights_[call.weight].inputs : tensors_[call.tensor].columns) == width,
                   "table does not fit");
            return rows(width, {&out[0]});
        case Kind::gather_rows:
            expect(is_rows(in[0]) && in[0].extent == Extent::rows && first == width, "rows do not fit");
            expect(in[1].space == Space::wanted && out[0].extent == Extent::wanted, "numbers do not fit");
            return rows(width, {&out[0]});
        case Kind::linear:
        case Kind::quantised_rows_linear: {
            expect(call.weight >= 0, "a linear without a weight");
            const PackedView& view = weights_[call.weight];
            expect(view.inputs == first && view.outputs == width, "a weight does not fit");
            rows(width, {&out[0]});
            if (call.kind == Kind::linear) return rows(first, {&in[0]});
            codes(in[0], first);
            return expect(view.width > 0 && grouping_of(first, in[0].group).group == view.group, "groups differ");
        }
        case Kind::quantise_rows: rows(first, {&in[0]}); return codes(out[0], first);
        case Kind::rms_norm: norm(width); return rows(width, {&in[0], &out[0]});
        case Kind::rms_norm_quantise: norm(first); rows(first, {&in[0]}); return codes(out[0], first);
        case Kind::add_rms_norm: norm(width); return rows(width, {&in[0], &in[1], &out[0], &out[1]});
        case Kind::add_rms_norm_quantise:
            norm(width);
            rows(width, {&in[0], &in[1], &out[0]});
            return codes(out[1], width);
        case Kind::silu_mul_quantise: rows(first, {&in[0], &in[1]}); return codes(out[0], first);
        case Kind::silu: return rows(width, {&in[0], &out[0]});
        case Kind::add:
        case Kind::mul:
        case Kind::silu_mul: return rows(width, {&in[0], &in[1], &out[0]});
        case Kind::rotary:
            expect(in[1].space == Space::positions && out[0].extent == Extent::rows && call.table >= 0 && call.head_dim >= 1 &&
                       width % call.head_dim == 0 && tables_[call.table].dims() <= call.head_dim, "heads do not fit");
            return rows(width, {&in[0], &out[0]});
        case Kind::attention: return check_attention(call);
        case Kind::plugin: return check_plugin(call);
    }
}

void Program::check_attention(const Call& call) const {
    const auto &q = call.inputs[0], &k = call.inputs[1], &v = call.inputs[2], &out = call.outputs[0];
    expect(call.layer >= 0 && call.layer < cache_.layers(), "the cache has no such layer");
    const CacheView& view = cache_.view(call.layer);
    const int kv_width = view.kv_heads * view.head_dim;
    for (const Place* place : {&q, &k, &v, &out})
        expect(is_rows(*place) && place->extent == Extent::rows, "attention reads and writes rows of the step");
    expect(q.width == out.width && q.width % kv_width == 0, "queries do not fit the cache");
    expect(k.width == kv_width && v.width == kv_width, "keys or values do not fit the cache");
}

void Program::check_plugin(const Call& call) const {
    expect(call.kernel != nullptr, "a plug-in's operator without a kernel");
    expect(call.names.size() == call.values.size() && call.names.size() <= kMostPlaces, "attributes do not fit");
    for (const Place& place : call.inputs) {
        expect(place.space != Space::codes, "a plug-in's kernel takes no codes");
        if (place.space == Space::tensor)
            expect(tensors_[place.offset].format == Format::fp32, "a plug-in's kernel takes weights in fp32");
    }
}

void Program::reserve_for(const Call& call) {
    const int members = team_.size(), rows = call.outputs.empty() ? max_rows_ : most(call.outputs[0].extent);
    switch (call.kind) {
        case Kind::linear:
            scratch_.reserve_codes(weights_[call.weight], rows);
            return scratch_.reserve_linear(members, weights_[call.weight], rows);
        case Kind::quantised_rows_linear: return scratch_.reserve_linear(members, weights_[call.weight], rows);
        case Kind::rms_norm:
        case Kind::rms_norm_quantise:
        case Kind::add_rms_norm:
        case Kind::add_rms_norm_quantise:
        case Kind::silu_mul_quantise: return scratch_.reserve_rows(members, call.inputs[0].width);
        case Kind::attention: {
            const CacheView& view = cache_.view(call.layer);
            const int shared = call.inputs[0].width / (view.kv_heads * view.head_dim);
            return scratch_.reserve_attention(members, shared, view.head_dim);
        }
        default: return;
    }
}

}  // namespace autoglm
