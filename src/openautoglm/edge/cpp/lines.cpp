#include "lines.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include <unistd.h>

#include "fault.h"
#include "log.h"

namespace autoglm::edge {

namespace {

// Lines of a bounded length, read from a file's number; of a longer one only that it was longer.
class Input {
public:
    Input(int handle, size_t longest) : handle_(handle), longest_(longest) {}

    // Throws Fault where the input cannot be read.
    bool next(std::string& line, bool& whole) {
        line.clear();
        whole = true;
        for (;;) {
            if (at_ == filled_) {
                const ssize_t count = read(handle_, block_, sizeof block_);
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

private:
    const int handle_;
    const size_t longest_;
    size_t at_ = 0, filled_ = 0;
    char block_[16 << 10];
};

void put(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
        throw Fault(std::string("standard output cannot be written: ") + std::strerror(errno));
}

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
        Input input(STDIN_FILENO, 2 * longest_);
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

}  // namespace

int answer_lines(Model& model, Author& author, const Options& options) { return Lines(model, author, options).run(); }

}  // namespace autoglm::edge
