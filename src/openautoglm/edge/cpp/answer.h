// From a prompt to its answer.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "json.h"
#include "model.h"

namespace autoglm::edge {

struct Answer {
    std::string text;
    bool finished = false;  // the model ended it; else it has as many tokens as it may
    bool left = false;      // nobody waited for it any more
    int prompt_tokens = 0, tokens = 0;
    double first_ms = 0, whole_ms = 0;  // from the start to the first token, and to the last
};

// Told each new piece of text; false: nobody waits for more.
using Listener = std::function<bool(const std::string& piece)>;

class Author {
public:
    explicit Author(Model& model);

    // Throws Fault: the prompt is not UTF-8, or leaves no room for an answer.
    Answer answer(const std::string& prompt, const Sampling& sampling, const Listener& listener);

    // The prompt of a record: its `prompt` or `source`, or what the bundle's template makes of its columns.
    // Throws Fault.
    std::string prompt_of(const Json& record) const;

private:
    void frame(const std::string& prompt);
    void fill();

    Model& model_;
    std::vector<int32_t> ids_;
    std::string text_;
};

// Take options of an answer from a record's members; true where the name is one of them. Throws Fault.
bool take_option(Sampling& sampling, const std::string& name, const Json& value);

}  // namespace autoglm::edge
