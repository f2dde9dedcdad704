// What went wrong, in words for the user: the program says it and ends, or answers a request with it.
#pragma once

#include <stdexcept>
#include <string>

namespace autoglm::edge {

class Fault : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

inline void expect(bool holds, const std::string& fault) {
    if (!holds) throw Fault(fault);
}

}  // namespace autoglm::edge
