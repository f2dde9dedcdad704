#include "core/packed.h"

#include <cstring>
#include <stdexcept>

namespace autoglm {

namespace {

constexpr uint32_t kMostWidth = 1u << 16;    // the sum of a group, 255 * 127 * 65536, still fits 32 bits
constexpr uint32_t kMostOutputs = 1u << 26;

[[noreturn]] void refuse(const std::string& fault) { throw std::invalid_argument("packed matrix: " + fault); }

void expect(bool holds, const std::string& fault) {
    if (!holds) refuse(fault);
}

PackedHeader read_header(const uint8_t* data, size_t bytes) {
    PackedHeader header;
    expect(data != nullptr && bytes >= sizeof(header), "shorter than its header");
    std::memcpy(&header, data, sizeof(header));
    expect(std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0, "not a packed matrix");
    expect(header.version == kVersion, "version " + std::to_string(header.version) + ", this build reads version 1");
    expect(header.format >= 1 && header.format <= 4, "unknown format " + std::to_string(header.format));
    expect(header.panel == kPanel, "panels of " + std::to_string(header.panel) + ", not 32");
    expect(header.outputs >= 1 && header.outputs <= kMostOutputs, "outputs out of range");
    expect(header.inputs >= 1 && header.inputs <= kMostWidth, "inputs out of range");
    for (uint8_t byte : header.reserved) expect(byte == 0, "reserved bytes are not zero");
    return header;
}

PackedView shape_of(const PackedHeader& header) {
    PackedView view{};
    view.format = static_cast<Format>(header.format);
    view.zeros = header.flags & 1;
    view.outputs = static_cast<int>(header.outputs);
    view.inputs = static_cast<int>(header.inputs);
    view.group = static_cast<int>(header.group);
    view.panels_count = (view.outputs + kPanel - 1) / kPanel;
    if (view.format == Format::fp32 || view.format == Format::bf16) {
        expect(header.group == 0 && header.flags == 0, "groups or flags in a format without groups");
        const size_t each = view.format == Format::fp32 ? size_t{4} * view.inputs : size_t{4} * ((view.inputs + 1) / 2);
        view.panel_bytes = sizeof(PanelHead) + kPanel * each;
        return view;
    }
    expect(header.flags <= 1, "unknown flags");
    expect(header.group >= 1 && header.group <= header.inputs && header.inputs % header.group == 0,
           "groups of " + std::to_string(header.group) + " do not divide " + std::to_string(header.inputs) + " inputs");
    view.groups = view.inputs / view.group;
    view.group_padded = (view.group + 7) / 8 * 8;
    view.width = view.groups * view.group_padded;
    const size_t codes = size_t{kPanel} * view.group_padded / (view.format == Format::int8 ? 1 : 2);
    view.group_bytes = sizeof(GroupHead) * (view.zeros ? 2 : 1) + codes;
    view.panel_bytes = sizeof(PanelHead) + view.groups * view.group_bytes;
    return view;
}

}  // namespace

PackedView shape_packed(Format format, bool zeros, int64_t outputs, int64_t inputs, int64_t group) {
    expect(outputs >= 1 && outputs <= kMostOutputs, "outputs out of range");
    expect(inputs >= 1 && inputs <= kMostWidth, "inputs out of range");
    expect(group >= 0 && group <= kMostWidth, "groups out of range");
    PackedHeader header{};
    header.format = static_cast<uint8_t>(format);
    header.flags = zeros ? 1 : 0;
    header.outputs = static_cast<uint32_t>(outputs);
    header.inputs = static_cast<uint32_t>(inputs);
    const bool coded = format == Format::int8 || format == Format::int4;
    header.group = static_cast<uint32_t>(coded && group == 0 ? inputs : group);
    return shape_of(header);
}

PackedView view_header(const uint8_t* header_at, size_t header_bytes, size_t bytes) {
    const PackedHeader header = read_header(header_at, header_bytes);
    const PackedView view = shape_of(header);
    const size_t payload = payload_bytes(view);
    expect(header.panel_bytes == view.panel_bytes, "the size of a panel does not follow from the shape");
    expect(header.payload_bytes == payload, "the stated size does not follow from the shape");
    expect(bytes == sizeof(header) + payload, "holds " + std::to_string(bytes) + " bytes, should hold " +
                                                  std::to_string(sizeof(header) + payload));
    return view;
}

PackedView view_packed(const uint8_t* data, size_t bytes) {
    PackedView view = view_header(data, bytes, bytes);
    view.panels = data + sizeof(PackedHeader);
    return view;
}

PackedHeader header_of(const PackedView& view) {
    PackedHeader header{};
    std::memcpy(header.magic, kMagic, sizeof(kMagic));
    header.version = kVersion;
    header.format = static_cast<uint8_t>(view.format);
    header.flags = view.zeros ? 1 : 0;
    header.outputs = static_cast<uint32_t>(view.outputs);
    header.inputs = static_cast<uint32_t>(view.inputs);
    header.group = static_cast<uint32_t>(view.group);
    header.panel = kPanel;
    header.panel_bytes = view.panel_bytes;
    header.payload_bytes = payload_bytes(view);
    return header;
}

Format format_of(const std::string& name) {
    if (name == "fp32") return Format::fp32;
    if (name == "bf16") return Format::bf16;
    if (name == "int8") return Format::int8;
    if (name == "int4") return Format::int4;
    refuse("no format '" + name + "'");
}

PackedMatrix::PackedMatrix(const uint8_t* data, size_t bytes, bool copy) : view_(view_packed(data, bytes)) {
    if (!copy) return;
    memory_ = Memory(bytes);
    std::memcpy(memory_.data(), data, bytes);
    view_.panels = memory_.data() + sizeof(PackedHeader);
}

}  // namespace autoglm
