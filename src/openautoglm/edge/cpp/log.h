// What the program says of its doings, on standard error, if it was built to and asked to (--verbose).
#pragma once

#include <cstdarg>
#include <cstdio>

namespace autoglm::edge {

#ifdef AUTOGLM_EDGE_LOG

inline bool& talkative() {
    static bool value = false;
    return value;
}

__attribute__((format(printf, 1, 2))) inline void log(const char* form, ...) {
    if (!talkative()) return;
    va_list values;
    va_start(values, form);
    std::fputs("autoglm-edge: ", stderr);
    std::vfprintf(stderr, form, values);
    std::fputc('\n', stderr);
    va_end(values);
}

#else

template <class... Values> inline void log(const char*, const Values&...) {}

#endif

}  // namespace autoglm::edge
