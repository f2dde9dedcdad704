// The next id of each row of logits.
//
// Temperature 0: the largest logit, the lowest id among equals. Otherwise p = softmax(logits / temperature); the top_k
// largest are kept (0: all), of these the fewest of the largest that together reach top_p, of these those with p of at
// least min_p times the largest; among equals lower ids first. The id is the first, in the order of ids, whose
// cumulative share of what is kept exceeds the row's uniform number.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/operators.h"

namespace autoglm {

struct SampleArgs {
    Rows logits;  // [rows, vocabulary]; -inf is never drawn
    int rows, vocabulary;
    const float* temperature;  // [rows], as the following
    const int32_t* top_k;
    const float *top_p, *min_p;
    const double* uniforms;  // in [0, 1)
    int32_t* ids;            // -1 for a row whose largest logit is not finite, or that has one that is not a number
    float* logprobs;         // of the id, natural logarithm, at temperature 1 without filters; -inf where the id is -1
};

size_t sampler_scratch(int vocabulary);  // bytes that each member needs of Scratch
// Members take rows from `next`, which is zero before the first comes.
void sample(const Member&, const SampleArgs& args, std::atomic<int64_t>& next);

}  // namespace autoglm
