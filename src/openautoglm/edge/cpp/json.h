// JSON, read strictly and with bounds, and written.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace autoglm::edge {

struct Json {
    enum class Kind : uint8_t { null, boolean, number, text, list, object };
    Kind kind = Kind::null;
    bool truth = false;
    double number = 0;
    std::string text;
    std::vector<std::pair<std::string, Json>> members;  // of objects; items of lists have empty names

    const Json* find(const std::string& name) const;  // nullptr where there is none
};

// Read one value with nothing behind it. Throws Fault: not JSON, not UTF-8, deeper than 16 levels, a name twice.
Json parse_json(const std::string& text);

void append_json(std::string& out, const std::string& text);  // in quotes; UTF-8 stays as it is
std::string json_text(const std::string& text);

}  // namespace autoglm::edge
