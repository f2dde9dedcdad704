// Cosines and sines of rotary positions: memory for all of them, made when the first step comes that far.
#pragma once

#include <cstddef>

#include "core/memory.h"

namespace autoglm {

class RotaryTable {
public:
    // dims: how many dimensions of a head turn. Throws std::invalid_argument unless it is even and theta positive.
    RotaryTable(double theta, int dims, int positions);

    int dims() const { return dims_; }
    size_t bytes() const { return memory_.size(); }
    // [positions, dims]: cosine and sine of each pair side by side; made up to what was asked for
    const float* data() const { return memory_.as<float>(); }
    void make(int positions);

private:
    double theta_;
    int dims_, positions_, made_ = 0;
    Memory memory_;
};

}  // namespace autoglm
