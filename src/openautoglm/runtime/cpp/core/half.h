// fp16 numbers that are finite, as the shares of scales are.
#pragma once

#include <cstdint>
#include <cstring>

namespace autoglm {

inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return bits;
}

inline float from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
}

inline float from_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, rest = half & 0x7FFFu;
    if (rest < 0x400u) return from_bits(sign | bits_of(static_cast<float>(rest) * (1.f / 16777216.f)));
    return from_bits(sign | ((rest << 13) + 0x38000000u));
}

}  // namespace autoglm
