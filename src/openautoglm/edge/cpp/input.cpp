#include "input.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <unistd.h>

#include "fault.h"

namespace autoglm::edge {

bool Input::next(std::string& line, bool& whole) {
    line.clear();
    whole = true;
    for (;;) {
        if (at_ == filled_) {
            const ssize_t count = read(STDIN_FILENO, block_, sizeof block_);
            if (count < 0 && errno == EINTR) continue;
            expect(count >= 0, std::string("standard input cannot be read: ") + std::strerror(errno));
            if (count == 0) return !line.empty() || !whole;
            at_ = 0;
            filled_ = static_cast<size_t>(count);
        }
        const char* start = block_ + at_;
        const auto* end = static_cast<const char*>(std::memchr(start, '\n', filled_ - at_));
        const size_t count = end != nullptr ? static_cast<size_t>(end - start) : filled_ - at_;
        whole = whole && line.size() + count <= longest_;
        if (whole) line.append(start, count);
        at_ += count + (end != nullptr ? 1 : 0);
        if (end != nullptr) return true;
    }
}

void put(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
        throw Fault(std::string("standard output cannot be written: ") + std::strerror(errno));
}

}  // namespace autoglm::edge
