#include "http_request.h"

#include <algorithm>
#include <cctype>

#include "answer.h"
#include "fault.h"
#include "json.h"

namespace autoglm::edge {

namespace {

std::string lower(std::string text) {
    for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    return text;
}

bool is_token(const std::string& text) {
    static const std::string marks = "!#$%&'*+-.^_`|~";
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || marks.find(c) != std::string::npos;
    });
}

std::string trimmed(const std::string& text) {
    const size_t first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t");
    return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

struct Head {
    std::string host, content_type, content_length;
    bool has_host = false, has_length = false;
};

void take_field(Head& head, const std::string& line) {
    const size_t colon = line.find(':');
    const std::string name = lower(line.substr(0, colon));
    if (colon == std::string::npos || !is_token(name)) throw Refusal{400, "a header field is malformed"};
    const std::string value = trimmed(line.substr(colon + 1));
    for (const char c : value)
        if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7F) throw Refusal{400, "a header field is malformed"};
    if (name == "host") {
        if (head.has_host) throw Refusal{400, "there are two Host fields"};
        head.has_host = true;
        head.host = lower(value);
    } else if (name == "content-length") {
        if (head.has_length) throw Refusal{400, "there are two Content-Length fields"};
        head.has_length = true;
        head.content_length = value;
    } else if (name == "content-type") {
        head.content_type = lower(trimmed(value.substr(0, value.find(';'))));
    } else if (name == "transfer-encoding") {
        throw Refusal{411, "a body comes with a Content-Length, not in chunks"};
    } else if (name == "expect") {
        throw Refusal{417, "no expectation can be met"};
    }
}

// A page of a browser may reach this device under a name of its own; it says so in Host.
void check_host(const Head& head) {
    if (!head.has_host) throw Refusal{400, "the Host field is missing"};
    const std::string name = head.host.substr(0, head.host.rfind(':') == std::string::npos || head.host.back() == ']'
                                                     ? std::string::npos : head.host.rfind(':'));
    if (name != "localhost" && name != "127.0.0.1") throw Refusal{403, "only localhost and 127.0.0.1 are served"};
}

size_t length_of(const Head& head, size_t most) {
    const std::string& text = head.content_length;
    const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!digits) throw Refusal{400, "Content-Length is no number"};
    const bool fits = text.size() <= 9 && std::stoul(text) <= most;
    if (!fits) throw Refusal{413, "a body has at most " + std::to_string(most) + " bytes"};
    return std::stoul(text);
}

void read_first_line(const std::string& line, Request& request) {
    const size_t one = line.find(' '), two = line.rfind(' ');
    if (one == std::string::npos || one == two) throw Refusal{400, "the request line is malformed"};
    request.method = line.substr(0, one);
    request.path = line.substr(one + 1, two - one - 1);
    const std::string version = line.substr(two + 1);
    if (version.compare(0, 5, "HTTP/") != 0 || !is_token(request.method)) throw Refusal{400, "the request line is malformed"};
    if (version != "HTTP/1.1" && version != "HTTP/1.0") throw Refusal{400, "only HTTP/1.1 is spoken"};
    const bool plain = std::all_of(request.path.begin(), request.path.end(), [](char c) { return c > 0x20 && c < 0x7F; });
    if (request.path.empty() || request.path[0] != '/' || !plain) throw Refusal{400, "the path is malformed"};
    request.path = request.path.substr(0, request.path.find('?'));
}

}  // namespace

bool read_request(const std::string& text, const Bounds& bounds, Request& request) {
    const size_t end = text.find("\r\n\r\n");
    if (end == std::string::npos ? text.size() > bounds.head : end > bounds.head)
        throw Refusal{431, "the head of a request has at most " + std::to_string(bounds.head) + " bytes"};
    if (end == std::string::npos) return false;
    const size_t first_end = text.find("\r\n");
    read_first_line(text.substr(0, first_end), request);
    Head head;
    for (size_t at = first_end + 2; at < end + 2;) {
        const size_t line_end = text.find("\r\n", at);
        take_field(head, text.substr(at, line_end - at));
        at = line_end + 2;
    }
    check_host(head);
    const size_t start = end + 4;
    if (request.method != "POST") {
        if (head.has_length && length_of(head, bounds.body) > 0) throw Refusal{400, "only POST has a body"};
        return true;
    }
    if (!head.has_length) throw Refusal{411, "the Content-Length is missing"};
    const size_t length = length_of(head, bounds.body);
    if (head.content_type != "application/json") throw Refusal{415, "the body must be application/json"};
    if (text.size() - start < length) return false;
    if (text.size() - start > length) throw Refusal{400, "there is more than one request on the connection"};
    request.body = text.substr(start, length);
    return true;
}

void read_order(const std::string& body, Sampling& sampling, std::string& prompt) {
    const Json order = parse_json(body);
    expect(order.kind == Json::Kind::object, "the body must be an object");
    const Json* found = order.find("prompt");
    expect(found != nullptr && found->kind == Json::Kind::text, "prompt must be a text");
    prompt = found->text;
    for (const auto& [name, value] : order.members) {
        if (name == "prompt" || value.kind == Json::Kind::null || take_option(sampling, name, value)) continue;
        if (name == "model" || name == "user") {
            expect(value.kind == Json::Kind::text, name + " must be a text");
        } else if (name == "n" || name == "best_of") {
            expect(value.kind == Json::Kind::number && value.number == 1, name + " can only be 1 here");
        } else if (name == "stream" || name == "echo") {
            expect(value.kind == Json::Kind::boolean && !value.truth, name + " can only be false here");
        } else {
            throw Fault("the field " + json_text(name) + " is not known here");
        }
    }
}

const char* reason(int status) {
    switch (status) {
        case 200: return "OK";
        case 400: return "Bad Request";
        case 403: return "Forbidden";
        case 404: return "Not Found";
        case 405: return "Method Not Allowed";
        case 408: return "Request Timeout";
        case 411: return "Length Required";
        case 413: return "Content Too Large";
        case 415: return "Unsupported Media Type";
        case 417: return "Expectation Failed";
        case 431: return "Request Header Fields Too Large";
        case 503: return "Service Unavailable";
        default: return "Internal Server Error";
    }
}

}  // namespace autoglm::edge
