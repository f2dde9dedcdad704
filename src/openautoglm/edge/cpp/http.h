// A small HTTP server on the loopback device: one request at a time, everything bounded.
#pragma once

#include "answer.h"
#include "options.h"

namespace autoglm::edge {

// Serve until a signal ends the process. Throws Fault where the port cannot be had.
int serve(Model& model, Author& author, const Options& options);

}  // namespace autoglm::edge
