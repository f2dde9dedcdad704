// Lines of standard input in, answers on standard output, one line each.
#pragma once

#include "answer.h"
#include "options.h"

namespace autoglm::edge {

// Answer until the input ends; returns how many lines could not be answered. Such a line gives an empty line (with
// --json an object with `error`), and says why on standard error.
int answer_lines(Model& model, Author& author, const Options& options);

// For checks of the tokenizer: of each line, a JSON text, its ids; or of each line of ids with commas their text in
// JSON. Throws Fault at the first line that is neither.
void translate_lines(Model& model, bool decode);

}  // namespace autoglm::edge
