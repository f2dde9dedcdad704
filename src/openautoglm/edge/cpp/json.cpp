#include "json.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fault.h"
#include "utf8.h"

namespace autoglm::edge {

namespace {

constexpr int kDeepest = 16;

class Parser {
public:
    explicit Parser(const std::string& text) : text_(text) {}

    Json whole() {
        Json value = this->value(0);
        skip();
        if (at_ != text_.size()) fail("something stands behind the value");
        return value;
    }

private:
    [[noreturn]] void fail(const char* fault) const {
        throw Fault("not JSON at byte " + std::to_string(at_) + ": " + fault);
    }
    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    void skip() {
        while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) != nullptr && text_[at_] != '\0') ++at_;
    }
    void take(const char* word) {
        const size_t length = std::strlen(word);
        if (text_.compare(at_, length, word) != 0) fail("an unknown word");
        at_ += length;
    }

    Json value(int depth) {
        if (depth > kDeepest) fail("nested too deeply");
        skip();
        Json out;
        switch (peek()) {
            case '{': return collection(depth, '}', Json::Kind::object);
            case '[': return collection(depth, ']', Json::Kind::list);
            case '"': out.kind = Json::Kind::text; out.text = string(); return out;
            case 't': take("true"); out.kind = Json::Kind::boolean; out.truth = true; return out;
            case 'f': take("false"); out.kind = Json::Kind::boolean; return out;
            case 'n': take("null"); return out;
            default: return number();
        }
    }

    Json collection(int depth, char end, Json::Kind kind) {
        Json out;
        out.kind = kind;
        ++at_;
        skip();
        if (peek() == end) return ++at_, out;
        for (;;) {
            std::string name;
            if (kind == Json::Kind::object) {
                skip();
                if (peek() != '"') fail("a name in quotes is missing");
                name = string();
                if (out.find(name) != nullptr) fail("a name stands twice");
                skip();
                if (peek() != ':') fail("a colon is missing");
                ++at_;
            }
            out.members.emplace_back(std::move(name), value(depth + 1));
            skip();
            const char next = peek();
            if (next != ',' && next != end) fail("a comma or the end is missing");
            ++at_;
            if (next == end) return out;
        }
    }

    Json number() {
        const size_t start = at_;
        const auto digits = [&] {
            const size_t first = at_;
            while (peek() >= '0' && peek() <= '9') ++at_;
            return at_ - first;
        };
        if (peek() == '-') ++at_;
        const bool zero = peek() == '0';
        const size_t whole = digits();
        if (whole == 0 || (zero && whole > 1)) fail("no value");
        if (peek() == '.' && (++at_, digits() == 0)) fail("a digit is missing");
        if (peek() == 'e' || peek() == 'E') {
            ++at_;
            if (peek() == '+' || peek() == '-') ++at_;
            if (digits() == 0) fail("a digit is missing");
        }
        Json out;
        out.kind = Json::Kind::number;
        out.number = std::strtod(text_.substr(start, at_ - start).c_str(), nullptr);
        if (!std::isfinite(out.number)) fail("a number is too large");
        return out;
    }

    uint32_t four_digits() {
        uint32_t code = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            const char c = peek();
            const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                              : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
            if (digit < 0) fail("four hexadecimal digits are missing");
            code = code << 4 | static_cast<uint32_t>(digit);
        }
        return code;
    }

    void escape(std::string& out) {
        static constexpr char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
        const char c = peek();
        ++at_;
        if (c == 'u') {
            uint32_t code = four_digits();
            if (code >= 0xD800 && code < 0xDC00 && text_.compare(at_, 2, "\\u") == 0) {
                at_ += 2;
                const uint32_t low = four_digits();
                if (low < 0xDC00 || low > 0xDFFF) fail("half a surrogate pair");
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            }
            if (code >= 0xD800 && code < 0xE000) fail("half a surrogate pair");
            return append_letter(out, code);
        }
        const char* found = c == '\0' ? nullptr : std::strchr(names, c);
        if (found == nullptr) fail("an unknown escape");
        out += meant[found - names];
    }

    std::string string() {
        std::string out;
        ++at_;
        for (;;) {
            if (at_ >= text_.size()) fail("a text without an end");
            const char c = text_[at_++];
            if (c == '"') return out;
            if (static_cast<uint8_t>(c) < 0x20) fail("a control character in a text");
            if (c == '\\') escape(out);
            else out += c;
        }
    }

    const std::string& text_;
    size_t at_ = 0;
};

}  // namespace

const Json* Json::find(const std::string& name) const {
    for (const auto& [key, value] : members)
        if (key == name) return &value;
    return nullptr;
}

Json parse_json(const std::string& text) {
    const int64_t fault = fault_in(text);
    if (fault >= 0) throw Fault("not UTF-8 at byte " + std::to_string(fault));
    return Parser(text).whole();
}

void append_json(std::string& out, const std::string& text) {
    out += '"';
    for (const char c : text) {
        const auto byte = static_cast<uint8_t>(c);
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (c == '\n') {
            out += "\\n";
        } else if (byte < 0x20 || byte == 0x7F) {
            char code[8];
            std::snprintf(code, sizeof code, "\\u%04x", byte);
            out += code;
        } else {
            out += c;
        }
    }
    out += '"';
}

std::string json_text(const std::string& text) {
    std::string out;
    append_json(out, text);
    return out;
}

}  // namespace autoglm::edge
