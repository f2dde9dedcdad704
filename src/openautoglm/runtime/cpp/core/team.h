// A team of threads which run one region together: it spins briefly between regions, then sleeps.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace autoglm {

// `size()` members; the caller of run() is member 0, the others are threads of the team's own.
class Team {
public:
    // cpus: processor of each own thread in order (fewer or none: the system decides); nice: of the own threads.
    // Throws std::invalid_argument for a size outside 1..1024, std::system_error when a thread cannot start.
    explicit Team(int threads, std::vector<int> cpus = {}, int nice = 0);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return size_; }

    // Call body(member) once for every member and return when all have; bodies do not throw. One region at a time.
    // Throws std::logic_error in a child process, where the threads do not exist.
    template <class Body> void run(const Body& body) {
        run_erased([](const void* context, int member) { (*static_cast<const Body*>(context))(member); }, &body);
    }

    // Inside a region: wait until every member is here. All members pass the same barriers.
    void barrier();

private:
    using Call = void (*)(const void*, int);

    void run_erased(Call call, const void* context);
    void work(int member, int cpu, int nice);
    bool await_region(uint64_t seen);
    void stop();

    const int size_;
    const int owner_;  // process that made the threads
    std::vector<std::thread> threads_;
    std::mutex one_region_;

    Call call_ = nullptr;
    const void* context_ = nullptr;
    std::mutex sleep_;
    std::condition_variable wake_;
    std::atomic<bool> ending_{false};
    alignas(64) std::atomic<uint64_t> region_{0};
    alignas(64) std::atomic<int> sleepers_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> passed_{0};
};

// The part [first, last) of `count` things that falls to one of `parts`.
struct Share {
    int64_t first, last;
    Share(int64_t count, int part, int parts) : first(count * part / parts), last(count * (part + 1) / parts) {}
};

}  // namespace autoglm
