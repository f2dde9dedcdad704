// Whether the whole team does a step, or its caller alone: whichever was faster lately for steps of that size.
//
// Members wait for each other many times in a step. Where a step is small that may take longer than what they save, and
// far longer when other programs hold a processor that one of them needs. How much depends on the machine, the model and
// what else runs, so it is measured, and measured again from time to time. Values do not depend on it.
#pragma once

#include <array>
#include <cstdint>

namespace autoglm {

class Crew {
public:
    // How the next step of so many rows is done.
    bool alone(int rows) const;
    // Note a step that was done so, and how long it took.
    void took(int rows, bool alone, double seconds);

    int64_t steps_alone() const { return steps_alone_; }

private:
    static constexpr int kTrials = 6;    // steps in a row of a way that is tried; the first wakes or stills the team
    static constexpr int kKept = 5;      // times of a way that its median is of
    static constexpr int kPatience = 50; // of the time goes on the way that was slower: one part in so many

    struct Size {  // steps of like size
        std::array<std::array<double, kKept>, 2> times{};  // of the team, and alone
        std::array<int, 2> noted{};
        int trying = 0, left = kTrials;  // the way that is tried, and for how many steps yet; 0: none is
        double since = 0;                // seconds of steps since one was tried
        double usual(int way) const;
        int better() const { return usual(1) < usual(0) ? 1 : 0; }
    };

    static int place(int rows) { return rows < 1 ? 0 : 31 - __builtin_clz(static_cast<unsigned>(rows)); }

    std::array<Size, 32> sizes_{};  // by the power of two
    int64_t steps_alone_ = 0;
};

}  // namespace autoglm
