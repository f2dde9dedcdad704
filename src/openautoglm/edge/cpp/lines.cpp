#include "lines.h"

#include <cstdio>
#include <new>

#include "fault.h"
#include "input.h"
#include "log.h"
#include "utf8.h"

namespace autoglm::edge {

namespace {

// A text as part of one line.
void append_line(std::string& out, const std::string& text) {
    for (const char c : text) {
        if (c == '\n') out += "\\n";
        else if (c == '\r') out += "\\r";
        else out += c;
    }
}

class Lines {
public:
    Lines(const Model& model, Author& author, const Options& options)
        : author_(author), options_(options), longest_(text_bytes(model.context())) {
        out_.reserve(2 * longest_);
    }

    int run() {
        Input input(2 * longest_);
        std::string line;
        line.reserve(2 * longest_ + 1);
        bool whole = true;
        for (int number = 1; input.next(line, whole); ++number) {
            if (whole && line.find_first_not_of(" \t\r\v\f") == std::string::npos) continue;
            try {
                expect(whole, "the line has more than " + std::to_string(2 * longest_) + " bytes");
                answer(number, line);
            } catch (const Fault& error) {
                fail(number, error.what());
            } catch (const std::bad_alloc&) {
                fail(number, "no memory is left for this line");
            }
        }
        return failed_;
    }

private:
    void answer(int number, std::string& line) {
        if (line.compare(0, 3, "\xEF\xBB\xBF") == 0) line.erase(0, 3);
        while (!line.empty() && line.back() == '\r') line.pop_back();
        Sampling sampling = options_.sampling;
        const size_t first = line.find_first_not_of(" \t");
        std::string prompt;
        if (first != std::string::npos && line[first] == '{') {
            const Json record = parse_json(line);
            prompt = author_.prompt_of(record);
            for (const auto& [name, value] : record.members) take_option(sampling, name, value);
        } else {
            prompt = line;
        }
        const bool stream = options_.stream && !options_.json;
        const Answer answer = author_.answer(prompt, sampling, [&](const std::string& piece) {
            if (!stream) return true;
            out_.clear();
            append_line(out_, piece);
            put(out_);
            return true;
        });
        out_.clear();
        if (options_.json) {
            out_ += "{\"line\": " + std::to_string(number) + ", \"source\": ";
            append_json(out_, prompt);
            out_ += ", \"text\": ";
            append_json(out_, answer.text);
            out_ += std::string(", \"finished\": ") + (answer.finished ? "true" : "false") + ", \"tokens\": " +
                    std::to_string(answer.tokens) + "}";
        } else if (!stream) {
            append_line(out_, answer.text);
        }
        out_ += '\n';
        put(out_);
        tell(number, answer);
    }

    void fail(int number, const std::string& fault) {
        ++failed_;
        std::fprintf(stderr, "autoglm-edge: line %d: %s\n", number, fault.c_str());
        out_.clear();
        if (options_.json) {
            out_ += "{\"line\": " + std::to_string(number) + ", \"error\": ";
            append_json(out_, fault);
            out_ += "}";
        }
        out_ += '\n';
        put(out_);
    }

    void tell(int number, const Answer& answer) const {
        log("line %d: %d tokens after %d, %.1f ms", number, answer.tokens, answer.prompt_tokens, answer.whole_ms);
        if (!options_.stats) return;
        const double rest = answer.whole_ms - answer.first_ms;
        std::fprintf(stderr, "{\"line\": %d, \"prompt_tokens\": %d, \"tokens\": %d, \"first_token_ms\": %.3f, "
                     "\"tokens_per_s\": %.1f, \"peak_resident\": %zu}\n", number, answer.prompt_tokens, answer.tokens,
                     answer.first_ms, answer.tokens > 1 && rest > 0 ? (answer.tokens - 1) * 1000 / rest : 0.0,
                     peak_resident());
    }

    Author& author_;
    const Options& options_;
    const size_t longest_;
    std::string out_;
    int failed_ = 0;
};

// Ids of the JSON text that a line is, or the text of the ids that stand on it.
void translate(Tokenizer& tokenizer, bool decode, const std::string& line, std::string& out) {
    std::vector<int32_t> ids;
    if (!decode) {
        const Json text = parse_json(line);
        expect(text.kind == Json::Kind::text, "a line must be a JSON text");
        tokenizer.encode(text.text, ids);
        for (const int32_t id : ids) out += (out.empty() ? "" : " ") + std::to_string(id);
        return;
    }
    const Json list = parse_json("[" + line + "]");
    TextStream stream;
    std::string text;
    for (const auto& [name, value] : list.members) {
        expect(value.kind == Json::Kind::number && value.number >= 0 && value.number < 1e9, "a line must be ids");
        size_t count = 0;
        const uint8_t* bytes = tokenizer.piece(static_cast<int32_t>(value.number), count);
        stream.push(bytes, count, false, text);
    }
    stream.push(nullptr, 0, true, text);
    append_json(out, text);
}

}  // namespace

void translate_lines(Model& model, bool decode) {
    Input input(2 * text_bytes(model.context()));
    std::string line, out;
    for (bool whole = true; input.next(line, whole);) {
        expect(whole, "a line is too long");
        out.clear();
        translate(model.tokenizer(), decode, line, out);
        put(out + "\n");
    }
}

int answer_lines(Model& model, Author& author, const Options& options) { return Lines(model, author, options).run(); }

}  // namespace autoglm::edge
