// How a program runs each kind of call; sizes were checked when it was added.
#include "core/program.h"

namespace autoglm {

Rows Program::rows_at(const Place& place) const {
    if (place.space == Space::logits) return {args_.logits + place.offset, place.stride};
    return {reinterpret_cast<float*>(arena_.data() + place.offset), place.stride};
}

Codes Program::codes_at(const Place& place) const {
    const Grouping grouping = grouping_of(place.width, place.group);
    auto line = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
    const size_t rows = static_cast<size_t>(most(place.extent));
    uint8_t* values = arena_.data() + place.offset;
    uint8_t* scales = values + line(rows * grouping.width());
    uint8_t* sums = scales + line(rows * grouping.groups * 4);
    return {reinterpret_cast<int8_t*>(values), reinterpret_cast<float*>(scales), reinterpret_cast<int32_t*>(sums)};
}

const int32_t* Program::numbers_at(const Place& place) const {
    return place.space == Space::ids ? args_.ids : place.space == Space::positions ? args_.positions : args_.wanted;
}

void Program::execute(const Call& call, const Member& member, std::atomic<int64_t>& turn) const {
    const int rows = count(call.outputs[0].extent);
    if (rows == 0) return;
    switch (call.kind) {
        case Kind::embedding: {
            if (call.weight >= 0)
                return gather_packed(member, weights_[call.weight], args_.ids, rows, rows_at(call.outputs[0]));
            const Tensor& tensor = tensors_[call.tensor];
            const Table table{tensor.format, tensor.data, nullptr, tensor.rows};
            return gather(member, table, args_.ids, rows, call.outputs[0].width, rows_at(call.outputs[0]));
        }
        case Kind::gather_rows:
            return gather_rows(member, rows_at(call.inputs[0]), args_.wanted, rows, call.outputs[0].width,
                               rows_at(call.outputs[0]));
        case Kind::linear:
        case Kind::quantised_rows_linear:
        case Kind::quantise_rows: return execute_product(call, member, rows, turn);
        case Kind::rms_norm:
        case Kind::rms_norm_quantise:
        case Kind::add_rms_norm:
        case Kind::add_rms_norm_quantise: return execute_norm(call, member, rows);
        case Kind::attention: return execute_attention(call, member, turn);
        case Kind::plugin: return execute_plugin(call, member);
        default: return execute_value(call, member, rows);
    }
}

void Program::execute_product(const Call& call, const Member& member, int rows, std::atomic<int64_t>& turn) const {
    const Place &in = call.inputs[0], &out = call.outputs[0];
    if (call.kind == Kind::quantise_rows)
        return quantise_rows(member, grouping_of(out.width, out.group), rows_at(in), rows, codes_at(out));
    const PackedView& weight = weights_[call.weight];
    if (call.kind == Kind::linear) return linear(member, weight, rows_at(in), rows, rows_at(out), turn);
    quantised_rows_linear(member, weight, codes_at(in), rows, rows_at(out), turn);
}

void Program::execute_norm(const Call& call, const Member& member, int rows) const {
    const Place& in = call.inputs[0];
    const float* weight = call.tensor < 0 ? nullptr : static_cast<const float*>(tensors_[call.tensor].data);
    const Rows x = rows_at(in);
    const Place& last = call.outputs.back();
    const Grouping grouping = last.space == Space::codes ? grouping_of(last.width, last.group) : Grouping{};
    if (call.kind == Kind::rms_norm) return rms_norm(member, x, weight, rows, in.width, call.eps, rows_at(last));
    if (call.kind == Kind::rms_norm_quantise)
        return rms_norm_quantise(member, x, weight, rows, in.width, call.eps, grouping, codes_at(last));
    const Rows y = rows_at(call.inputs[1]), total = rows_at(call.outputs[0]);
    if (call.kind == Kind::add_rms_norm)
        return add_rms_norm(member, x, y, weight, rows, in.width, call.eps, total, rows_at(last));
    add_rms_norm_quantise(member, x, y, weight, rows, in.width, call.eps, total, grouping, codes_at(last));
}

// Calls that work value by value.
void Program::execute_value(const Call& call, const Member& member, int rows) const {
    const Place &in = call.inputs[0], &out = call.outputs[0];
    const Rows x = rows_at(in);
    if (call.kind == Kind::silu) return silu(member, x, rows, in.width, rows_at(out));
    if (call.kind == Kind::rotary) {
        const RotaryTable& table = tables_[call.table];
        return rotary(member, x, rows, in.width / call.head_dim, call.head_dim, table.dims(), table.data(),
                      args_.positions, rows_at(out));
    }
    const Rows y = rows_at(call.inputs[1]);
    if (call.kind == Kind::add) return autoglm::add(member, x, y, rows, in.width, rows_at(out));
    if (call.kind == Kind::mul) return mul(member, x, y, rows, in.width, rows_at(out));
    if (call.kind == Kind::silu_mul) return silu_mul(member, x, y, rows, in.width, rows_at(out));
    silu_mul_quantise(member, x, y, rows, in.width, grouping_of(out.width, out.group), codes_at(out));
}

void Program::execute_attention(const Call& call, const Member& member, std::atomic<int64_t>& turn) const {
    const CacheView& view = cache_.view(call.layer);
    const Rows q = rows_at(call.inputs[0]), out = rows_at(call.outputs[0]);
    const int heads = call.inputs[0].width / view.head_dim;
    const AttentionArgs args{view, q.data, out.data, heads, q.stride, out.stride, call.scale};
    write_and_attend(member, args, layout_, rows_at(call.inputs[1]), rows_at(call.inputs[2]), turn);
}

autoglm_tensor Program::tensor_at(const Place& place) const {
    if (place.space == Space::tensor) {
        const Tensor& tensor = tensors_[place.offset];
        return {const_cast<void*>(tensor.data), tensor.rows, tensor.columns, tensor.columns, AUTOGLM_FP32};
    }
    if (place.space == Space::arena || place.space == Space::logits) {
        const Rows rows = rows_at(place);
        return {rows.data, count(place.extent), place.width, rows.stride, AUTOGLM_FP32};
    }
    const int numbers = place.space == Space::wanted ? args_.wanted_count : args_.rows;
    return {const_cast<int32_t*>(numbers_at(place)), numbers, 1, 1, AUTOGLM_INT32};
}

void Program::execute_plugin(const Call& call, const Member& member) const {
    autoglm_tensor inputs[kMostPlaces], outputs[kMostPlaces];
    const char* names[kMostPlaces];
    for (size_t i = 0; i < call.inputs.size(); ++i) inputs[i] = tensor_at(call.inputs[i]);
    for (size_t i = 0; i < call.outputs.size(); ++i) outputs[i] = tensor_at(call.outputs[i]);
    for (size_t i = 0; i < call.names.size(); ++i) names[i] = call.names[i].c_str();
    const autoglm_call given{AUTOGLM_KERNEL_VERSION, member.index, member.team.size(),
                             static_cast<int32_t>(call.inputs.size()), static_cast<int32_t>(call.outputs.size()),
                             static_cast<int32_t>(call.names.size()), inputs, outputs, names, call.values.data()};
    call.kernel(&given);
}

}  // namespace autoglm
