#include "src/base/stop_request.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>

namespace espalier {

namespace {

constexpr std::array<int, 3> stop_signals = {SIGTERM, SIGUSR1, SIGINT};

static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may use it");
std::atomic<int> first_signal{0};
std::atomic<bool> speaks{false};

void say(std::string_view sentence) {
    if (speaks.load()) static_cast<void>(!write(STDERR_FILENO, sentence.data(), sentence.size()));
}

void note(int signal) {
    int none = 0;
    const bool first = first_signal.compare_exchange_strong(none, signal);
    const int error_of_the_interrupted = errno;
    if (signal == SIGINT) {
        std::signal(SIGINT, SIG_DFL);
        say("\nstopping after the present block; Ctrl-C again ends at once\n");
    } else if (first) {
        say("\nstopping after the present block\n");
    }
    errno = error_of_the_interrupted;
}

sigset_t set_of_stop_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : stop_signals) sigaddset(&set, signal);
    return set;
}

/// Launchers pass a signal on to all ranks, whose number they put into the environment.
bool is_first_rank() {
    for (const char* const name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
        if (const char* const rank = std::getenv(name)) return std::atoi(rank) == 0;
    }
    return true;
}

}  // namespace

void hold_stop_signals() {
    const sigset_t held = set_of_stop_signals();
    pthread_sigmask(SIG_BLOCK, &held, nullptr);
}

void note_stop_signals() {
    speaks.store(is_first_rank());
    struct sigaction action {};
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    for (const int signal : stop_signals) sigaction(signal, &action, nullptr);
    // A launcher's own mask is inherited too: a blocked signal would never be heard.
    const sigset_t heard = set_of_stop_signals();
    pthread_sigmask(SIG_UNBLOCK, &heard, nullptr);
}

void heed_stop_signals() {
    for (const int signal : stop_signals) std::signal(signal, SIG_DFL);
}

bool stop_requested() {
    return stop_signal() != 0;
}

int stop_signal() {
    return first_signal.load();
}

std::string name_of_signal(int signal) {
    switch (signal) {
        case SIGTERM:
            return "SIGTERM";
        case SIGUSR1:
            return "SIGUSR1";
        case SIGINT:
            return "SIGINT";
        default:
            return "signal " + std::to_string(signal);
    }
}

}  // namespace espalier
