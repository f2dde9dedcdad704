// Lines of standard input, and text for standard output.
#pragma once

#include <cstddef>
#include <string>

namespace autoglm::edge {

// Lines of a bounded length; of a longer one only that it was longer.
class Input {
public:
    explicit Input(size_t longest) : longest_(longest) {}

    // False at the end. Throws Fault where the input cannot be read.
    bool next(std::string& line, bool& whole);

private:
    const size_t longest_;
    size_t at_ = 0, filled_ = 0;
    char block_[16 << 10];
};

void put(const std::string& text);  // throws Fault

}  // namespace autoglm::edge
