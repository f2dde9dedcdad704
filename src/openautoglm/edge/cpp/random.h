// The random numbers of one answer: those that the engine's sampler takes for the same prompt and seed.
//
// Philox 4x64 (Salmon et al. 2011) with ten rounds, keyed by numpy's SeedSequence (O'Neill's seed_seq) of seed, copy
// and the SHA-256 (FIPS 180-4) of the prompt's ids; the number of a place depends on nothing else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace autoglm::edge {

std::array<uint8_t, 32> sha256(const uint8_t* bytes, size_t count);

class Uniforms {
public:
    Uniforms(const std::vector<int32_t>& prompt, uint64_t seed);
    double at(uint64_t place) const;  // in [0, 1)

private:
    uint64_t key_[2];
};

}  // namespace autoglm::edge
