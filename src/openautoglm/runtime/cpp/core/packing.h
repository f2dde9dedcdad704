// From rows of weights to packed panels: rounding to nearest, in the layout of core/packed.h. The rounding is that of
// runtime/quantised.py, to the last bit.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/packed.h"

namespace autoglm {

// Some rows of a matrix [count, inputs] in fp32 or bf16; parts lie one under the other.
struct PackPart {
    const void* rows;
    bool bf16;
    int64_t count;
};

struct PackArgs {
    PackedView view;  // its panels are not read
    std::vector<PackPart> parts;
    const float* bias;  // [outputs], or nullptr
    uint8_t* panels;    // payload_bytes(view) bytes
};

// Some rows of a quantised matrix as a file holds them; parts lie one under the other.
struct StoredPart {
    const uint8_t* codes;    // [count, inputs], signed where symmetric; of 4 bits two a byte, the even input low
    const uint16_t* shares;  // fp16 [count, groups]
    const float* scales;     // [count]
    const uint8_t* zeros;    // [count, groups], or nullptr
    int64_t count;
};

struct StoredArgs {
    PackedView view;  // its panels are not read
    std::vector<StoredPart> parts;
    const float* bias;  // [outputs], or nullptr
    uint8_t* panels;    // payload_bytes(view) bytes
};

// As pack_panels(), of codes that are taken as they are.
void pack_stored(const StoredArgs& args, std::atomic<int64_t>& next);

// Floats of work space that each thread needs.
inline size_t pack_scratch(const PackedView& view) {
    return static_cast<size_t>(kPanel) * view.inputs + 2 * static_cast<size_t>(view.groups);
}

// Pack panels, taking their numbers from `next`, until none is left; several threads may do so together.
// Returns false if a value that was to be rounded is not finite; its panel is then unfinished.
bool pack_panels(const PackArgs& args, std::atomic<int64_t>& next, float* scratch);

}  // namespace autoglm
