#include "core/crew.h"

#include <algorithm>

namespace autoglm {

// The median of the last times.
double Crew::Size::usual(int way) const {
    std::array<double, kKept> sorted = times[way];
    std::nth_element(sorted.begin(), sorted.begin() + kKept / 2, sorted.end());
    return sorted[kKept / 2];
}

bool Crew::alone(int rows) const {
    const Size& size = sizes_[place(rows)];
    return (size.left > 0 ? size.trying : size.better()) == 1;
}

void Crew::took(int rows, bool alone, double seconds) {
    Size& size = sizes_[place(rows)];
    const int way = alone ? 1 : 0;
    steps_alone_ += way;
    if (size.left < kTrials) size.times[way][size.noted[way]++ % kKept] = seconds;
    if (size.left > 0) {
        if (--size.left > 0) return;
        size.since = 0;
        if (size.noted[1] == 0) {  // both are tried to begin with
            size.trying = 1;
            size.left = kTrials;
        }
        return;
    }
    size.since += seconds;
    const int other = 1 - size.better();
    if (size.since < kPatience * kTrials * size.usual(other)) return;
    size.trying = other;
    size.left = kTrials;
}

}  // namespace autoglm
