// Requests of HTTP/1.1, read from what has come so far and judged strictly.
#pragma once

#include <string>

#include "options.h"

namespace autoglm::edge {

// What a client is told: a status and why.
struct Refusal {
    int status;
    std::string message;
};

struct Bounds {
    size_t head, body;  // bytes
};

struct Request {
    std::string method, path, body;
};

// Read a request, false while it is not whole. Throws Refusal for what is malformed, too large, or not for us.
bool read_request(const std::string& text, const Bounds& bounds, Request& request);

// The prompt and options in a body of /v1/completions. Throws Fault.
void read_order(const std::string& body, Sampling& sampling, std::string& prompt);

const char* reason(int status);

}  // namespace autoglm::edge
