#include "src/base/stop_request.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <string_view>

namespace espalier {

namespace {

constexpr std::array<int, 3> stop_signals = {SIGTERM, SIGUSR1, SIGINT};

static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may use it");
std::atomic<int> first_signal{0};
std::atomic<bool> on_terminal{false};

void note(int signal) {
    int none = 0;
    first_signal.compare_exchange_strong(none, signal);
    if (signal != SIGINT) return;
    const int error_of_the_interrupted = errno;
    std::signal(SIGINT, SIG_DFL);
    constexpr std::string_view sentence = "\nstopping after the present block; Ctrl-C again ends at once\n";
    if (on_terminal.load()) static_cast<void>(!write(STDERR_FILENO, sentence.data(), sentence.size()));
    errno = error_of_the_interrupted;
}

sigset_t set_of_stop_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : stop_signals) sigaddset(&set, signal);
    return set;
}

}  // namespace

void hold_stop_signals() {
    const sigset_t held = set_of_stop_signals();
    pthread_sigmask(SIG_BLOCK, &held, nullptr);
}

void note_stop_signals() {
    on_terminal.store(isatty(STDERR_FILENO) != 0);
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
