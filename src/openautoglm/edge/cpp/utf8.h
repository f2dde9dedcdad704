// UTF-8: reading code points, and bytes of a model as text, where each piece that is no UTF-8 becomes U+FFFD.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace autoglm::edge {

// What stands at the start of some bytes: a whole code point, or the longest piece that could begin one.
struct Letter {
    uint32_t code;    // of a whole one
    int bytes;        // at least 1
    bool whole;
    bool unfinished;  // not whole, and more bytes could make it so
};
Letter letter_at(const uint8_t* bytes, size_t count);  // count >= 1

// The first byte that is no UTF-8, or -1.
int64_t fault_in(const std::string& text);

void append_letter(std::string& text, uint32_t code);

// Pieces of bytes in, text out: an unfinished code point waits for its end.
class TextStream {
public:
    // Append what is known to be text; `last`: nothing comes any more, what is unfinished becomes U+FFFD.
    void push(const uint8_t* bytes, size_t count, bool last, std::string& text);

private:
    uint8_t held_[4] = {};
    size_t count_ = 0;
};

}  // namespace autoglm::edge
