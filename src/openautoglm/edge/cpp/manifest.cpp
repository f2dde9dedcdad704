#include "manifest.h"

#include <cerrno>
#include <cstdlib>

#include "core/packed.h"
#include "fault.h"
#include "json.h"
#include "mapping.h"

namespace autoglm::edge {

namespace {

constexpr size_t kMostBytes = size_t{16} << 20;

// The words of one line, which is checked to its end.
class Line {
public:
    explicit Line(const std::string& text) : text_(text) {}

    bool more() {
        while (at_ < text_.size() && text_[at_] == ' ') ++at_;
        return at_ < text_.size();
    }
    std::string word() {
        expect(more(), "a word is missing");
        const size_t start = at_;
        while (at_ < text_.size() && text_[at_] != ' ') ++at_;
        return text_.substr(start, at_ - start);
    }
    int64_t number(int64_t least, int64_t most) {
        const std::string text = word();
        char* end = nullptr;
        errno = 0;
        const int64_t value = std::strtoll(text.c_str(), &end, 10);
        expect(*end == '\0' && errno == 0 && value >= least && value <= most, "'" + text + "' is no number that fits");
        return value;
    }
    size_t size() { return static_cast<size_t>(number(0, int64_t{1} << 46)); }
    int small(int least = 0) { return static_cast<int>(number(least, (1 << 30) - 1)); }
    double real() {
        const std::string text = word();
        char* end = nullptr;
        const double value = std::strtod(text.c_str(), &end);
        expect(end != text.c_str() && *end == '\0' && value - value == 0, "'" + text + "' is no number");
        return value;
    }
    // A text in JSON's quotes: the rest of the line.
    std::string text() {
        expect(more(), "a text is missing");
        const Json value = parse_json(text_.substr(at_));
        at_ = text_.size();
        expect(value.kind == Json::Kind::text, "a text in quotes is missing");
        return value.text;
    }
    std::string file() {
        const std::string name = word();
        expect(name.find('/') == std::string::npos && name != "." && name != "..", "a file beside the manifest is meant");
        return name;
    }
    void end() { expect(!more(), "there is more on the line than belongs there"); }

private:
    const std::string& text_;
    size_t at_ = 0;
};

std::vector<int32_t> ids_of(Line& line) {
    std::vector<int32_t> ids;
    while (line.more()) ids.push_back(line.small());
    return ids;
}

Place place_of(Line& line) {
    Place place;
    place.space = space_of(line.word());
    place.extent = line.number(0, 1) != 0 ? Extent::wanted : Extent::rows;
    place.offset = line.number(0, int64_t{1} << 46);
    place.stride = line.small();
    place.width = line.small();
    place.group = line.small();
    return place;
}

Call call_of(Line& line) {
    Call call;
    call.kind = kind_of(line.word());
    expect(call.kind != Kind::plugin, "an operator of a plug-in has no kernel here");
    call.barrier = line.number(0, 1) != 0;
    call.weight = line.small(-1);
    call.tensor = line.small(-1);
    call.table = line.small(-1);
    call.eps = static_cast<float>(line.real());
    call.scale = static_cast<float>(line.real());
    call.head_dim = line.small();
    call.layer = line.small();
    return call;
}

Format format_in(Line& line) { return format_of(line.word()); }

void take_weights(Manifest& to, const std::string& key, Line& line) {
    if (key == "item") {
        const size_t offset = line.size(), bytes = line.size();
        to.items.push_back({offset, bytes, static_cast<uint32_t>(line.number(0, 0xFFFFFFFF)), line.word()});
    } else if (key == "weight") {
        const Format format = format_in(line);
        const int64_t rows = line.small(1), columns = line.small(1), group = line.small();
        const bool symmetric = line.number(0, 1) != 0;
        const size_t item = line.size(), first = line.size();
        to.weight_list.push_back({format, rows, columns, group, symmetric, item, first, line.size()});
    } else if (key == "rows_of") {
        const Format format = format_in(line);
        const int64_t rows = line.small(1), columns = line.small(1);
        to.row_list.push_back({format, rows, columns, line.size()});
    } else if (key == "table") {
        const double theta = line.real();
        to.tables.push_back({theta, line.small(1)});
    } else if (key == "call") {
        to.calls.push_back(call_of(line));
    } else if (key == "in" || key == "out") {
        expect(!to.calls.empty(), "a place without a call");
        (key == "in" ? to.calls.back().inputs : to.calls.back().outputs).push_back(place_of(line));
    } else {
        throw Fault("the word '" + key + "' is unknown");
    }
}

void take(Manifest& to, const std::string& key, Line& line) {
    if (key == "name") to.name = line.text();
    else if (key == "weights") to.weights = line.file();
    else if (key == "tokenizer") to.tokenizer = line.file();
    else if (key == "rows") to.rows = line.small(1);
    else if (key == "positions") to.positions = line.small(1);
    else if (key == "vocabulary") to.vocabulary = line.small(1);
    else if (key == "max_tokens") to.max_tokens = line.small(1);
    else if (key == "arena") to.arena = line.size();
    else if (key == "stop") to.stop = ids_of(line);
    else if (key == "before") to.before = ids_of(line);
    else if (key == "after") to.after = ids_of(line);
    else if (key == "empty") to.empty = ids_of(line);
    else if (key == "lead") to.lead = line.text();
    else if (key == "strip") to.strip = line.text();
    else if (key == "text") to.record.push_back({line.text(), "", false});
    else if (key == "column") to.record.push_back({"", line.text(), true});
    else if (key == "lenient") to.lenient = line.number(0, 1) != 0;
    else if (key == "cache") {
        to.layers = line.small(1);
        to.page_size = line.small(1);
        to.kv_heads = line.small(1);
        to.head_dim = line.small(1);
        to.cache = line.word();
    } else {
        return take_weights(to, key, line);
    }
}

}  // namespace

Manifest read_manifest(const std::string& path) {
    const std::string text = read_text(path, kMostBytes);
    Manifest manifest;
    size_t number = 0;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const std::string content = text.substr(at, end - at);
        at = end + 1;
        ++number;
        Line line(content);
        try {
            if (!line.more() || content[0] == '#') continue;
            const std::string key = line.word();
            if (number == 1) {
                expect(key == "autoglm-edge" && line.word() == "1", "this is no manifest of this version");
            } else {
                take(manifest, key, line);
            }
            line.end();
        } catch (const std::exception& error) {
            throw Fault(path + ":" + std::to_string(number) + ": " + error.what() + "; make the folder again with autoglm edge");
        }
    }
    expect(manifest.rows > 0 && manifest.positions > 0 && manifest.vocabulary > 0 && manifest.layers > 0 &&
               !manifest.calls.empty() && !manifest.weights.empty() && !manifest.tokenizer.empty() &&
               !manifest.before.empty() && !manifest.empty.empty(),
           path + " is cut short; make the folder again with autoglm edge");
    return manifest;
}

}  // namespace autoglm::edge
