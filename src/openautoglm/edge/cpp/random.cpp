#include "random.h"

#include <cstring>

namespace autoglm::edge {

namespace {

uint32_t turn(uint32_t x, int by) { return x >> by | x << (32 - by); }

constexpr uint32_t kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

void digest_block(uint32_t state[8], const uint8_t* block) {
    uint32_t w[64];
    for (int i = 0; i < 16; ++i)
        w[i] = static_cast<uint32_t>(block[4 * i]) << 24 | static_cast<uint32_t>(block[4 * i + 1]) << 16 |
               static_cast<uint32_t>(block[4 * i + 2]) << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; ++i) {
        const uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + w[i - 7] + (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
    }
    uint32_t s[8];
    std::memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; ++i) {
        const uint32_t one = turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25), choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        const uint32_t first = s[7] + one + choice + kRounds[i] + w[i];
        const uint32_t two = turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22);
        const uint32_t second = two + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        std::memmove(s + 1, s, 7 * sizeof(uint32_t));
        s[4] += first;
        s[0] = first + second;
    }
    for (int i = 0; i < 8; ++i) state[i] += s[i];
}

// numpy.random.SeedSequence: a pool of four words stirred by all of the entropy, and words drawn from it.
class SeedSequence {
public:
    explicit SeedSequence(const std::vector<uint32_t>& entropy) {
        for (size_t i = 0; i < 4; ++i) pool_[i] = hash(i < entropy.size() ? entropy[i] : 0);
        for (int from = 0; from < 4; ++from)
            for (int to = 0; to < 4; ++to)
                if (from != to) pool_[to] = mix(pool_[to], hash(pool_[from]));
        for (size_t i = 4; i < entropy.size(); ++i)
            for (uint32_t& word : pool_) word = mix(word, hash(entropy[i]));
    }

    void draw(uint32_t* words, int count) const {
        uint32_t factor = 0x8b51f9dd;
        for (int i = 0; i < count; ++i) {
            uint32_t value = pool_[i % 4] ^ factor;
            factor *= 0x58f38ded;
            value *= factor;
            words[i] = value ^ value >> 16;
        }
    }

private:
    uint32_t hash(uint32_t value) {
        value ^= factor_;
        factor_ *= 0x931e8875;
        value *= factor_;
        return value ^ value >> 16;
    }
    static uint32_t mix(uint32_t x, uint32_t y) {
        const uint32_t value = 0xca01f9dd * x - 0x4973f715 * y;
        return value ^ value >> 16;
    }

    uint32_t pool_[4];
    uint32_t factor_ = 0x43b0d7e5;
};

// A number as SeedSequence takes it: words of 32 bits, at least one.
void append_words(std::vector<uint32_t>& words, uint64_t number) {
    words.push_back(static_cast<uint32_t>(number));
    if (number >> 32) words.push_back(static_cast<uint32_t>(number >> 32));
}

uint64_t high_product(uint64_t a, uint64_t b) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}

}  // namespace

std::array<uint8_t, 32> sha256(const uint8_t* bytes, size_t count) {
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    size_t at = 0;
    for (; at + 64 <= count; at += 64) digest_block(state, bytes + at);
    uint8_t tail[128] = {};
    const size_t rest = count - at, whole = rest + 9 <= 64 ? 64 : 128;
    if (rest > 0) std::memcpy(tail, bytes + at, rest);
    tail[rest] = 0x80;
    for (int i = 0; i < 8; ++i) tail[whole - 1 - i] = static_cast<uint8_t>(static_cast<uint64_t>(count) * 8 >> (8 * i));
    for (size_t i = 0; i < whole; i += 64) digest_block(state, tail + i);
    std::array<uint8_t, 32> out{};
    for (int i = 0; i < 32; ++i) out[i] = static_cast<uint8_t>(state[i / 4] >> (24 - 8 * (i % 4)));
    return out;
}

Uniforms::Uniforms(const std::vector<int32_t>& prompt, uint64_t seed) {
    std::vector<uint8_t> bytes;
    bytes.reserve(8 * prompt.size());
    for (const int32_t id : prompt)
        for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<uint8_t>(static_cast<uint64_t>(id) >> (8 * i)));
    const std::array<uint8_t, 32> digest = sha256(bytes.data(), bytes.size());
    std::vector<uint32_t> entropy;
    append_words(entropy, seed);
    append_words(entropy, 0);  // the first copy
    for (int i = 0; i < 32; i += 4)
        entropy.push_back(static_cast<uint32_t>(digest[i]) | static_cast<uint32_t>(digest[i + 1]) << 8 |
                          static_cast<uint32_t>(digest[i + 2]) << 16 | static_cast<uint32_t>(digest[i + 3]) << 24);
    uint32_t words[4];
    SeedSequence(entropy).draw(words, 4);
    for (int i = 0; i < 2; ++i) key_[i] = words[2 * i] | static_cast<uint64_t>(words[2 * i + 1]) << 32;
}

double Uniforms::at(uint64_t place) const {
    uint64_t counter[4] = {place / 4 + 1, 0, 0, 0}, key[2] = {key_[0], key_[1]};
    for (int round = 0; round < 10; ++round) {
        constexpr uint64_t first = 0xD2E7470EE14C6C93, second = 0xCA5A826395121157;
        const uint64_t high0 = high_product(first, counter[0]), low0 = first * counter[0];
        const uint64_t high1 = high_product(second, counter[2]), low1 = second * counter[2];
        counter[0] = high1 ^ counter[1] ^ key[0];
        counter[2] = high0 ^ counter[3] ^ key[1];
        counter[1] = low1;
        counter[3] = low0;
        key[0] += 0x9E3779B97F4A7C15;
        key[1] += 0xBB67AE8584CAA73B;
    }
    return static_cast<double>(counter[place % 4] >> 11) * (1.0 / 9007199254740992.0);
}

}  // namespace autoglm::edge
