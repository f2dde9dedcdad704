#include "answer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "fault.h"
#include "random.h"
#include "utf8.h"

namespace autoglm::edge {

namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

double number(const std::string& name, const Json& value) {
    expect(value.kind == Json::Kind::number, name + " must be a number");
    return value.number;
}

int64_t whole(const std::string& name, const Json& value, int64_t least, int64_t most) {
    const double found = number(name, value);
    expect(found == std::floor(found) && found >= static_cast<double>(least) && found <= static_cast<double>(most),
           name + " must be a whole number from " + std::to_string(least) + " to " + std::to_string(most));
    return static_cast<int64_t>(found);
}

}  // namespace

Author::Author(Model& model) : model_(model) {
    ids_.reserve(static_cast<size_t>(text_bytes(model.context())) + 64);
    text_.reserve(text_bytes(model.context()) + 256);
}

// The ids of a prompt in the model's form.
void Author::frame(const std::string& prompt) {
    const Manifest& form = model_.manifest();
    ids_.clear();
    if (prompt.empty()) {
        ids_.insert(ids_.end(), form.empty.begin(), form.empty.end());
        return;
    }
    ids_.insert(ids_.end(), form.before.begin(), form.before.end());
    text_ = form.lead;
    text_ += prompt;
    model_.tokenizer().encode(text_, ids_);
    ids_.insert(ids_.end(), form.after.begin(), form.after.end());
}

// Write the prompt's keys and values, in steps of as many rows as the program has.
void Author::fill() {
    const int count = static_cast<int>(ids_.size());
    for (int start = 0; start < count; start += model_.manifest().rows) {
        const int rows = std::min(model_.manifest().rows, count - start);
        model_.step(ids_.data() + start, rows, start, start + rows == count);
    }
}

Answer Author::answer(const std::string& prompt, const Sampling& sampling, const Listener& listener) {
    const Manifest& form = model_.manifest();
    const Clock::time_point begin = Clock::now();
    frame(prompt);
    const int room = model_.context() - static_cast<int>(ids_.size());
    expect(room >= 1, "the prompt has " + std::to_string(ids_.size()) + " tokens, the context " +
                          std::to_string(model_.context()) + ": shorten it, or raise --context or --memory-limit");
    const int most = std::min(room, sampling.max_tokens > 0 ? sampling.max_tokens : form.max_tokens);
    Answer answer;
    answer.prompt_tokens = static_cast<int>(ids_.size());
    fill();
    const Uniforms uniforms(sampling.temperature > 0 ? ids_ : std::vector<int32_t>{}, sampling.seed);
    TextStream stream;
    std::string piece;
    bool stripped = form.strip.empty();
    for (int place = 0;; ++place) {
        const double uniform = sampling.temperature > 0 ? uniforms.at(static_cast<uint64_t>(place)) : 0;
        const int32_t id = model_.choose(sampling, uniform);
        if (place == 0) answer.first_ms = ms_since(begin);
        ++answer.tokens;
        answer.finished = std::find(form.stop.begin(), form.stop.end(), id) != form.stop.end();
        const bool last = answer.finished || place + 1 == most;
        size_t count = 0;
        const uint8_t* bytes = model_.tokenizer().piece(id, count);
        piece.clear();
        stream.push(bytes, answer.finished ? 0 : count, last, piece);
        if (!stripped && !piece.empty()) {
            if (piece.compare(0, form.strip.size(), form.strip) == 0) piece.erase(0, form.strip.size());
            stripped = true;
        }
        answer.text += piece;
        answer.left = listener && !listener(piece);
        if (last || answer.left) break;
        model_.step(&id, 1, answer.prompt_tokens + place, true);
    }
    answer.whole_ms = ms_since(begin);
    return answer;
}

std::string Author::prompt_of(const Json& record) const {
    for (const char* name : {"source", "prompt"})
        if (const Json* found = record.find(name)) {
            expect(found->kind == Json::Kind::text, std::string(name) + " must be a text");
            return found->text;
        }
    const Manifest& form = model_.manifest();
    expect(!form.record.empty(), "the object has neither prompt nor source");
    std::string prompt;
    for (const Piece& piece : form.record) {
        if (!piece.is_column) {
            prompt += piece.text;
            continue;
        }
        const Json* found = record.find(piece.column);
        expect(found != nullptr || form.lenient, "the object has neither prompt nor the column " + json_text(piece.column));
        expect(found == nullptr || found->kind == Json::Kind::text || found->kind == Json::Kind::null,
               "the column " + json_text(piece.column) + " must be a text");
        if (found != nullptr) prompt += found->text;
    }
    return prompt;
}

bool take_option(Sampling& sampling, const std::string& name, const Json& value) {
    if (name == "max_tokens" || name == "max_new_tokens") {
        sampling.max_tokens = static_cast<int>(whole(name, value, 1, 1 << 24));
    } else if (name == "temperature") {
        sampling.temperature = static_cast<float>(number(name, value));
    } else if (name == "top_k") {
        sampling.top_k = static_cast<int>(whole(name, value, 0, 1 << 24));
    } else if (name == "top_p") {
        sampling.top_p = static_cast<float>(number(name, value));
    } else if (name == "min_p") {
        sampling.min_p = static_cast<float>(number(name, value));
    } else if (name == "seed") {
        sampling.seed = static_cast<uint64_t>(whole(name, value, 0, int64_t{1} << 53));
    } else {
        return false;
    }
    sampling.check();
    return true;
}

}  // namespace autoglm::edge
