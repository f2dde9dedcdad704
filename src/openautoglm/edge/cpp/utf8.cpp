#include "utf8.h"

#include <cstring>

namespace autoglm::edge {

Letter letter_at(const uint8_t* bytes, size_t count) {
    const uint8_t first = bytes[0];
    if (first < 0x80) return {first, 1, true, false};
    const int length = first >= 0xC2 && first <= 0xDF ? 2 : (first & 0xF0) == 0xE0 ? 3
                       : first >= 0xF0 && first <= 0xF4 ? 4 : 0;
    if (length == 0) return {0, 1, false, false};
    uint32_t code = first & (0xFF >> (length + 1));
    for (int i = 1; i < length; ++i) {
        if (static_cast<size_t>(i) == count) return {0, i, false, true};
        const uint8_t next = bytes[i];
        // overlong forms, surrogates and what lies beyond U+10FFFF show in the second byte
        const uint8_t least = i > 1 ? 0x80 : first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        const uint8_t most = i > 1 ? 0xBF : first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
        if (next < least || next > most) return {0, i, false, false};
        code = code << 6 | (next & 0x3F);
    }
    return {code, length, true, false};
}

int64_t fault_in(const std::string& text) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    for (size_t at = 0; at < text.size();) {
        const Letter letter = letter_at(bytes + at, text.size() - at);
        if (!letter.whole) return static_cast<int64_t>(at);
        at += static_cast<size_t>(letter.bytes);
    }
    return -1;
}

void append_letter(std::string& text, uint32_t code) {
    const auto put = [&](uint32_t byte) { text += static_cast<char>(byte); };
    if (code < 0x80) return put(code);
    if (code < 0x800) {
        put(0xC0 | code >> 6);
    } else {
        if (code < 0x10000) {
            put(0xE0 | code >> 12);
        } else {
            put(0xF0 | code >> 18);
            put(0x80 | (code >> 12 & 0x3F));
        }
        put(0x80 | (code >> 6 & 0x3F));
    }
    put(0x80 | (code & 0x3F));
}

void TextStream::push(const uint8_t* bytes, size_t count, bool last, std::string& text) {
    size_t at = 0;
    while (count_ > 0 || at < count) {
        // at most four bytes decide; held ones come first
        uint8_t window[4];
        size_t known = count_;
        std::memcpy(window, held_, count_);
        while (known < 4 && at + known - count_ < count) {
            window[known] = bytes[at + known - count_];
            ++known;
        }
        const Letter letter = letter_at(window, known);
        if (letter.unfinished && !last) {
            std::memcpy(held_, window, known);
            count_ = known;
            return;
        }
        if (letter.whole) text.append(reinterpret_cast<const char*>(window), static_cast<size_t>(letter.bytes));
        else append_letter(text, 0xFFFD);
        const size_t taken = static_cast<size_t>(letter.bytes);
        if (taken >= count_) {
            at += taken - count_;
            count_ = 0;
        } else {
            std::memmove(held_, held_ + taken, count_ - taken);
            count_ -= taken;
        }
    }
}

}  // namespace autoglm::edge
