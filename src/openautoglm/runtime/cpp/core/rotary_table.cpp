#include "core/rotary_table.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace autoglm {

namespace {

constexpr int kLeastMade = 512;

size_t table_bytes(double theta, int dims, int positions) {
    if (dims < 0 || dims % 2 != 0 || positions < 1 || !(theta > 0))
        throw std::invalid_argument("rotary dimensions are even, positions and theta positive");
    return sizeof(float) * dims * static_cast<size_t>(positions);
}

}  // namespace

RotaryTable::RotaryTable(double theta, int dims, int positions)
    : theta_(theta), dims_(dims), positions_(positions), memory_(table_bytes(theta, dims, positions)) {}

// Frequencies and angles are rounded to fp32, as the models were trained; cosines and sines of these are exact.
void RotaryTable::make(int positions) {
    if (positions <= made_) return;
    const int last = std::min(positions_, std::max({positions, 2 * made_, kLeastMade}));
    for (int pair = 0; pair < dims_ / 2; ++pair) {
        const float exponent = static_cast<float>(2 * pair) / static_cast<float>(dims_);
        const float frequency = 1.f / std::pow(static_cast<float>(theta_), exponent);
        for (int position = made_; position < last; ++position) {
            const double angle = static_cast<double>(static_cast<float>(position) * frequency);
            float* at = memory_.as<float>() + static_cast<size_t>(position) * dims_ + 2 * pair;
            at[0] = static_cast<float>(std::cos(angle));
            at[1] = static_cast<float>(std::sin(angle));
        }
    }
    made_ = last;
}

}  // namespace autoglm
