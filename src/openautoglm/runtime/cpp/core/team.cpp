#include "core/team.h"

#include <stdexcept>
#include <utility>

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace autoglm {

namespace {

constexpr int kSpins = 4000;        // some tens of microseconds: longer than the gap between two steps
constexpr int kYields = 64;         // then let others run, in case there are more threads than processors
constexpr int kMostThreads = 1024;

inline void pause_once() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

void settle(int cpu, int nice) {
    if (cpu >= 0 && cpu < CPU_SETSIZE) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        // a wish: a processor that is gone is no fault
        (void)pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
    }
    if (nice != 0) (void)setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), nice);
}

}  // namespace

Team::Team(int threads, std::vector<int> cpus, int nice) : size_(threads), owner_(getpid()) {
    if (threads < 1 || threads > kMostThreads) throw std::invalid_argument("a team has 1 to 1024 threads");
    try {
        for (int member = 1; member < size_; ++member) {
            const int cpu = static_cast<size_t>(member - 1) < cpus.size() ? cpus[member - 1] : -1;
            threads_.emplace_back(&Team::work, this, member, cpu, nice);
        }
    } catch (...) {
        stop();
        throw;
    }
}

Team::~Team() {
    if (getpid() == owner_) {
        stop();
        return;
    }
    for (std::thread& thread : threads_) thread.detach();  // after a fork there is nobody to join
}

void Team::stop() {
    {
        std::lock_guard<std::mutex> lock(sleep_);
        ending_.store(true, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
}

void Team::run_erased(Call call, const void* context) {
    if (getpid() != owner_) throw std::logic_error("the team of threads was made before this process was forked");
    std::lock_guard<std::mutex> alone(one_region_);
    if (size_ == 1) {
        call(context, 0);
        return;
    }
    call_ = call;
    context_ = context;
    region_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
        std::lock_guard<std::mutex> lock(sleep_);
        wake_.notify_all();
    }
    call(context, 0);
    barrier();
}

void Team::work(int member, int cpu, int nice) {
    settle(cpu, nice);
    for (uint64_t seen = 0; await_region(seen); ++seen) {
        call_(context_, member);
        barrier();
    }
}

// Wait for a region after `seen`; false: the team ends.
bool Team::await_region(uint64_t seen) {
    for (int spin = 0; spin < kSpins + kYields; ++spin) {
        if (region_.load(std::memory_order_acquire) != seen) return true;
        if (ending_.load(std::memory_order_acquire)) return false;
        if (spin < kSpins) pause_once();
        else sched_yield();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [&] {
        return region_.load(std::memory_order_seq_cst) != seen || ending_.load(std::memory_order_acquire);
    });
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    return region_.load(std::memory_order_acquire) != seen;
}

void Team::barrier() {
    if (size_ == 1) return;
    const uint32_t mine = passed_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        passed_.store(mine + 1, std::memory_order_release);
        return;
    }
    for (int spin = 0; passed_.load(std::memory_order_acquire) == mine; ++spin) {
        if (spin < kSpins) pause_once();
        else sched_yield();
    }
}

}  // namespace autoglm
