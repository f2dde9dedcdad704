// The packed matrix: how weights lie in files and in memory. docs/formats.md tells it in words.
//
// PackedHeader, then panels of 32 outputs, the last one filled up with zeros. A panel is a PanelHead, then
//   fp32:  for each input: 32 fp32 (one per output)
//   bf16:  for each two inputs: 32 pairs of bf16
//   int8:  for each group: GroupHead, then for each four inputs: 32 x 4 bytes
//   int4:  for each group: GroupHead, then for each eight inputs: 32 x 4 bytes; the low halves of the four bytes are
//          the first four inputs, the high halves the other four
// Everything little-endian. Codes are unsigned; value = (code - zero) * group scale * output scale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/memory.h"

namespace autoglm {

constexpr int kPanel = 32;
constexpr char kMagic[4] = {'O', 'A', 'G', 'P'};
constexpr uint16_t kVersion = 1;

enum class Format : uint8_t { fp32 = 1, bf16 = 2, int8 = 3, int4 = 4 };

struct PackedHeader {
    char magic[4];           // "OAGP"
    uint16_t version;        // 1
    uint8_t format;          // Format
    uint8_t flags;           // bit 0: groups have zero points; other bits are 0
    uint32_t outputs;        // rows of the matrix
    uint32_t inputs;         // columns of the matrix
    uint32_t group;          // inputs that share a scale, a divisor of inputs; 0 for fp32 and bf16
    uint32_t panel;          // 32
    uint64_t panel_bytes;
    uint64_t payload_bytes;  // panels * panel_bytes: all that follows the header
    uint8_t reserved[24];    // 0
};
static_assert(sizeof(PackedHeader) == 64, "the header is 64 bytes");

struct PanelHead {
    float scale[kPanel];  // of each output; 1 for fp32 and bf16
    float bias[kPanel];
};
static_assert(sizeof(PanelHead) == 256, "the head of a panel is 256 bytes");

struct GroupHead {
    uint16_t scale[kPanel];  // fp16, relative to the output's scale; may be negative
    // with flag bit 0: uint16_t zero[kPanel] follows
};
static_assert(sizeof(GroupHead) == 64, "the head of a group is 64 bytes");

// What kernels need of a matrix, all checked: `panels` may be read to its end and no further.
struct PackedView {
    Format format;
    bool zeros;        // groups have zero points
    int outputs;
    int inputs;
    int group;         // 0 for fp32 and bf16
    int groups;        // of a row
    int group_padded;  // inputs of a group in memory: a multiple of 8
    int width;         // of a row of activations in codes: groups * group_padded; 0 for fp32 and bf16
    int64_t panels_count;
    size_t panel_bytes;
    size_t group_bytes;  // head, zero points and codes
    const uint8_t* panels;
};

// What a matrix of that shape looks like, with no panels yet. Throws std::invalid_argument naming the fault.
PackedView shape_packed(Format format, bool zeros, int64_t outputs, int64_t inputs, int64_t group);

// Check the header of a matrix of `bytes` bytes, itself included, and say what it holds; the panels are not looked at.
PackedView view_header(const uint8_t* header, size_t header_bytes, size_t bytes);

// Check `bytes` bytes at `data` and say what they hold. Throws std::invalid_argument naming the fault.
PackedView view_packed(const uint8_t* data, size_t bytes);

PackedHeader header_of(const PackedView& view);

inline size_t payload_bytes(const PackedView& view) { return static_cast<size_t>(view.panels_count) * view.panel_bytes; }

// fp32, bf16, int8, int4. Throws std::invalid_argument for any other name.
Format format_of(const std::string& name);

// A matrix with its memory: copied into own memory (faster: large pages), or lent by somebody who keeps it alive.
class PackedMatrix {
public:
    PackedMatrix(const uint8_t* data, size_t bytes, bool copy);
    const PackedView& view() const { return view_; }

private:
    Memory memory_;
    PackedView view_;
};

}  // namespace autoglm
